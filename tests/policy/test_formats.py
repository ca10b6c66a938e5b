"""Checkpoints of other projects: what loads, as what, and that it goes out and comes in again unchanged."""

from __future__ import annotations

import ctypes
import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from genvla.errors import UserError
from genvla.policy.checkpoints import load_policy, save_policy
from genvla.policy.export import export_policy
from genvla.policy.finetuning import Finetuning, apply_finetuning
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.formats.names import ours, theirs, with_alias
from genvla.policy.formats.shapes import infer_config
from genvla.policy.pi0 import Pi0
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import BRIDGE_STATISTICS, Statistics
from genvla.types import Observation
from tests.policy import layouts
from tests.policy.layouts import FULL, SMALL, small_config

BRIDGE_FILE = {
    name: {"p01": [-0.1 - 0.01 * i for i in range(7)], "p99": [0.2 + 0.01 * i for i in range(7)], "mean": [0.0] * 7}
    for name in ("action", "proprio")
}


def open_pi_zero_tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return layouts.random_tensors(layouts.open_pi_zero_shapes(SMALL, 300), dtype)


def pi0_tensors(layout: str = "lerobot", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return layouts.random_tensors(layouts.pi0_shapes(SMALL, 300, layout=layout), dtype)


def same_policies(a: FlowPolicy, b: FlowPolicy, heads: bool = True) -> bool:
    states = [{name: value for name, value in p.state_dict().items() if heads or name.startswith("pi0.")} for p in (a, b)]
    assert states[0].keys() == states[1].keys() and a.config == b.config
    return all(torch.equal(value, states[1][name]) and value.dtype == states[1][name].dtype for name, value in states[0].items())


@pytest.fixture
def observation() -> Observation:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 48, 64, 3), dtype=torch.uint8, generator=generator)
    return Observation(images, ["put it there", "stack"], torch.tensor([[0.3, 0, 0.1, 0, 0, 0, 0.5]] * 2))


def test_full_size_open_pi_zero_has_the_known_938_names_and_shapes() -> None:
    table = layouts.open_pi_zero_shapes(FULL, 257_216)
    assert len(table) == 938
    with torch.device("meta"):
        model = Pi0(Pi0Config.open_pi_zero())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert with_alias(shapes) == table
    assert sum(np.prod(shape) for shape in shapes.values()) == 3_238_100_727
    assert infer_config(shapes, "open-pi-zero") == Pi0Config.open_pi_zero()


def test_full_size_openpi_has_the_known_names_and_shapes() -> None:
    table = layouts.pi0_shapes(FULL, 257_152, layout="openpi")
    with torch.device("meta"):
        model = Pi0(Pi0Config.openpi())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    named = {theirs(name, "lerobot"): shape for name, shape in shapes.items()}
    twin = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
    unread = "paligemma_with_expert.gemma_expert.lm_head.weight"
    assert named | {twin: (257_152, 2048), unread: (257_152, 1024)} == table
    assert infer_config(shapes, "lerobot") == Pi0Config.openpi()


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_any_sizes_are_told_by_the_shapes(data: st.DataObject) -> None:
    def draw(low: int, high: int, step: int = 1) -> int:
        return step * data.draw(st.integers(low, high))

    key, heads = draw(1, 8, 2), draw(1, 3)
    sizes = {
        "vision": {"w": draw(1, 2, 72), "m": draw(4, 60), "p": draw(2, 16), "t": draw(1, 5) ** 2, "layers": draw(1, 3)},
        "vlm": {"w": draw(4, 60), "m": draw(4, 60), "q": heads * key, "k": key},
        "action": {"w": draw(2, 30, 2), "m": draw(4, 60), "q": heads * key, "k": key},
        "layers": {"n": draw(1, 4)},
    }
    if data.draw(st.booleans()):
        kind, table = "open-pi-zero", layouts.open_pi_zero_shapes(sizes, draw(8, 300))
        shapes = {name: shape for name, shape in table.items() if ".proprio." not in name}
    else:
        kind, table = "lerobot", layouts.pi0_shapes(sizes, draw(8, 300), layout="lerobot", entries=draw(7, 40))
        shapes = {name: shape for key, shape in table.items() if (name := ours(key, "lerobot")) is not None}
    config = infer_config(shapes, kind)  # type: ignore[arg-type]
    assert config.vision.image_size == sizes["vision"]["p"] * math.isqrt(sizes["vision"]["t"])
    assert (config.joint.heads, config.joint.head_dim, config.joint.layers) == (heads, key, sizes["layers"]["n"])
    with torch.device("meta"):
        model = Pi0(config)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == shapes


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod."])
def test_open_pi_zero_loads(tmp_path: Path, prefix: str) -> None:
    tensors = open_pi_zero_tensors(torch.bfloat16)
    policy = load_policy(layouts.write_open_pi_zero(tmp_path, tensors, prefix))
    assert policy.model_config == small_config(Pi0Config.open_pi_zero())
    assert policy.processor.statistics == BRIDGE_STATISTICS and policy.processor.config.max_tokens == 20
    state = policy.pi0.state_dict()
    assert with_alias(state).keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) and value.dtype == torch.bfloat16 for name, value in state.items())
    assert all(value.dtype == torch.float32 for value in policy.noise_head.state_dict().values())


def test_one_name_inside_may_hold_the_compilers_prefix(tmp_path: Path) -> None:
    tensors = {name.replace("joint_model.", "joint_model._orig_mod."): value for name, value in open_pi_zero_tensors().items()}
    assert same_policies(
        load_policy(layouts.write_open_pi_zero(tmp_path / "a", tensors)),
        load_policy(layouts.write_open_pi_zero(tmp_path / "b", open_pi_zero_tensors())),
    )


@pytest.mark.parametrize("layout", ["lerobot", "openpi", "older"])
def test_every_layout_of_pi0_loads_to_the_same_weights(tmp_path: Path, layout: str) -> None:
    tensors = pi0_tensors(layout)
    policy = load_policy(layouts.write_safetensors(tmp_path, tensors, {"type": "pi0", "chunk_size": 6}))
    assert policy.model_config == replace(small_config(Pi0Config.openpi()), horizon=6)
    state, before = policy.pi0.state_dict(), "" if layout == "openpi" else "model."
    paligemma = f"{before}paligemma_with_expert.paligemma."
    inner, language = ("", "language_model.model.") if layout == "older" else ("model.", "model.language_model.")
    head = "language_model.lm_head.weight" if layout == "older" else "lm_head.weight"
    for name_here, name in {  # one of each kind, by hand
        "embed_tokens.weight": paligemma + head,
        "vision_tower.vision_model.encoder.layers.1.mlp.fc2.bias": (
            f"{paligemma}{inner}vision_tower.vision_model.encoder.layers.1.mlp.fc2.bias"
        ),
        "multi_modal_projector.linear.bias": f"{paligemma}{inner}multi_modal_projector.linear.bias",
        "joint_model.mixtures.vlm.layers.0.mlp.up_proj.weight": f"{paligemma}{language}layers.0.mlp.up_proj.weight",
        "joint_model.mixtures.vlm.norm.weight": f"{paligemma}{language}norm.weight",
        "joint_model.mixtures.action.layers.1.self_attn.o_proj.weight": (
            f"{before}paligemma_with_expert.gemma_expert.model.layers.1.self_attn.o_proj.weight"
        ),
        "joint_model.mixtures.action.norm.weight": f"{before}paligemma_with_expert.gemma_expert.model.norm.weight",
        "proprio_encoder.bias": f"{before}state_proj.bias",
        "action_encoder.linear_1.weight": f"{before}action_in_proj.weight",
        "action_encoder.linear_2.weight": f"{before}action_time_mlp_in.weight",
        "action_encoder.linear_3.weight": f"{before}action_time_mlp_out.weight",
        "action_decoder.weight": f"{before}action_out_proj.weight",
    }.items():
        assert torch.equal(state[name_here], tensors[name]), name_here
    assert len(state) == len(tensors) - {"lerobot": 1, "openpi": 2, "older": 2}[layout]  # the unread and the twin


def test_padded_dimensions_and_long_chunks_are_cut_to_what_the_robot_takes(tmp_path: Path, observation: Observation) -> None:
    policy = load_policy(layouts.write_safetensors(tmp_path, pi0_tensors()))
    policy.processor.tokenizer.encode = lambda text: (2, 50 + len(text), 108)  # type: ignore[method-assign]
    inputs = policy.processor(observation)
    assert inputs.proprio.shape == (2, 32) and not inputs.proprio[:, 7:].any()
    output = policy.act(inputs, generator=torch.Generator().manual_seed(0))
    assert output.chain.shape == (2, 11, 50, 32) and output.actions.shape == (2, 4, 7)
    low, high = (torch.tensor(values) for values in policy.processor.statistics.pair("action"))
    expected = (output.chain[:, -1, :4, :7] + 1) / 2 * (high - low) + low
    torch.testing.assert_close(output.actions[..., :6], expected[..., :6])


def test_paligemma_gives_the_vlm_and_the_rest_is_fresh_from_the_seed(tmp_path: Path) -> None:
    tensors = layouts.random_tensors(layouts.paligemma_shapes(SMALL, 300), torch.bfloat16)
    names = sorted(tensors)
    index = {"weight_map": {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}}
    for i in (0, 1):
        save_file({name: tensors[name] for name in names[i::2]}, tmp_path / f"model-0000{1 + i}-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    before = torch.random.get_rng_state()
    one, same, other = (load_policy(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    config = small_config(Pi0Config.open_pi_zero())
    expert = replace(config.joint.action, width=16, mlp=12)
    assert one.model_config == replace(config, joint=replace(config.joint, action=expert), suffix_scale=4.0)
    state = one.pi0.state_dict()
    for name_here, name in {
        "embed_tokens.weight": "language_model.model.embed_tokens.weight",
        "joint_model.mixtures.vlm.layers.1.mlp.gate_proj.weight": "language_model.model.layers.1.mlp.gate_proj.weight",
        "vision_tower.vision_model.post_layernorm.bias": "vision_tower.vision_model.post_layernorm.bias",
        "multi_modal_projector.linear.weight": "multi_modal_projector.linear.weight",
    }.items():
        assert torch.equal(state[name_here], tensors[name])
    assert same_policies(one, same)
    differing = {name for name, value in state.items() if not torch.equal(value, other.pi0.state_dict()[name])}
    assert differing and all(name.startswith(("joint_model.mixtures.action.", "action_", "proprio_")) for name in differing)
    assert all(value.isfinite().all() and value.dtype == torch.bfloat16 for value in state.values())
    assert not torch.equal(one.noise_head.layers[0].weight, other.noise_head.layers[0].weight)


def test_adapters_of_open_pi_zero_are_merged(tmp_path: Path) -> None:
    tensors, generator = open_pi_zero_tensors(), torch.Generator().manual_seed(3)
    plain = load_policy(layouts.write_open_pi_zero(tmp_path / "plain", tensors)).pi0.state_dict()
    layers = ["joint_model.mixtures.vlm.layers.0.self_attn.q_proj", "multi_modal_projector.linear"]
    for layer in layers:
        rows, columns = tensors[f"{layer}.weight"].shape
        tensors[f"{layer}.lora_A"] = torch.randn(3, columns, generator=generator)
        tensors[f"{layer}.lora_B"] = torch.randn(rows, 3, generator=generator)
    merged = load_policy(layouts.write_open_pi_zero(tmp_path / "lora", tensors)).pi0.state_dict()
    for name in plain:
        layer = name.removesuffix(".weight")
        added = tensors[f"{layer}.lora_B"] @ tensors[f"{layer}.lora_A"] if layer in layers else 0
        torch.testing.assert_close(merged[name], plain[name] + added)
    del tensors[f"{layers[0]}.lora_B"]
    with pytest.raises(UserError, match=r"q_proj: want lora_A \[r, in\], lora_B"):
        load_policy(layouts.write_open_pi_zero(tmp_path / "half", tensors))


def test_precision_is_kept_and_a_mixture_never_rounded(tmp_path: Path) -> None:
    tensors = pi0_tensors(dtype=torch.bfloat16)
    patch, norm = (
        f"model.paligemma_with_expert.paligemma.model.{name}.weight"
        for name in ("vision_tower.vision_model.embeddings.patch_embedding", "language_model.layers.0.input_layernorm")
    )
    tensors[norm] = torch.randn(32, generator=torch.Generator().manual_seed(0))
    state = load_policy(layouts.write_safetensors(tmp_path / "norms", tensors)).pi0.state_dict()
    kept = "joint_model.mixtures.vlm.layers.0.input_layernorm.weight"
    assert {name for name, value in state.items() if value.dtype == torch.float32} == {kept}
    tensors[patch] = torch.randn(72, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    folder = layouts.write_safetensors(tmp_path / "mixed", tensors)
    state = load_policy(folder).pi0.state_dict()
    assert state["joint_model.mixtures.vlm.layers.0.mlp.up_proj.weight"].dtype == torch.float32
    assert torch.equal(state["vision_tower.vision_model.embeddings.patch_embedding.weight"], tensors[patch])
    assert {value.dtype for value in load_policy(folder, dtype=torch.bfloat16).pi0.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize("format", ["open-pi-zero", "lerobot", "genvla"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_out_and_in_again_changes_nothing(tmp_path: Path, format: str, dtype: torch.dtype) -> None:
    if format == "lerobot":
        source = layouts.write_safetensors(tmp_path / "source", pi0_tensors(dtype=dtype), {"type": "pi0", "chunk_size": 7})
        stats = {name: {"mean": [0.1 * i for i in range(32)], "std": [0.3 + 0.1 * i for i in range(32)]}
                 for name in ("state", "actions")}  # fmt: skip
        (source / "assets" / "bridge").mkdir(parents=True)
        (source / "assets" / "bridge" / "norm_stats.json").write_text(json.dumps({"norm_stats": stats}))
    else:
        source = layouts.write_open_pi_zero(tmp_path / "source", open_pi_zero_tensors(dtype))
        (source.parent / "bridge_statistics.json").write_text(json.dumps(BRIDGE_FILE))
    first = load_policy(source, seed=5)
    if format == "lerobot":  # openpi adds 1e-6 to the standard deviation, on the way in and on the way back
        assert first.processor.statistics.pair("action")[0] == tuple(stats["actions"]["mean"][:7])
        assert first.processor.statistics.pair("proprio")[1] == tuple(value + 1e-6 for value in stats["state"]["std"][:7])
    export_policy(first, tmp_path / "out", format)  # type: ignore[arg-type]
    second = load_policy(tmp_path / "out", seed=5)
    assert same_policies(first, second)
    export_policy(second, tmp_path / "out", format)  # type: ignore[arg-type]
    assert same_policies(second, load_policy(tmp_path / "out", seed=5))
    if format == "genvla":
        assert same_policies(second, load_policy(tmp_path / "out" / "model.safetensors"))
    if format == "open-pi-zero":
        file = torch.load(tmp_path / "out" / "model.pt", weights_only=True)["model"]
        original = open_pi_zero_tensors(dtype)
        assert file.keys() == original.keys() and all(torch.equal(file[name], value) for name, value in original.items())
        assert (tmp_path / "out" / "model.pt").stat().st_size < 1.5 * sum(v.nbytes for v in first.pi0.state_dict().values())
    if format == "lerobot":
        file, original = load_file(tmp_path / "out" / "model.safetensors"), pi0_tensors(dtype=dtype)
        assert file.keys() == original.keys()
        assert all(torch.equal(file[name], value) for name, value in original.items() if "gemma_expert.lm_head" not in name)


def test_a_policy_without_the_end_of_the_last_layer_is_filled_up(tmp_path: Path) -> None:
    config = small_config(Pi0Config.open_pi_zero())
    whole = load_policy(layouts.write_open_pi_zero(tmp_path / "whole", open_pi_zero_tensors()))
    short = replace(whole.config, model=replace(config, joint=replace(config.joint, feature_layer=1)))
    policy = FlowPolicy.from_config(short)
    export_policy(policy, tmp_path / "out", "open-pi-zero")
    file = torch.load(tmp_path / "out" / "model.pt", weights_only=True)["model"]
    assert {name: tuple(value.shape) for name, value in file.items()} == layouts.open_pi_zero_shapes(SMALL, 300)
    unread = "joint_model.mixtures.vlm.layers.1."
    zero = {name for name, value in file.items() if name.startswith(unread) and not value.any()} - {
        f"{unread}input_layernorm.weight"  # fresh norms are zero too
    }
    assert {name.removeprefix(unread) for name in zero} == {
        f"{name}.weight" for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    } | {"post_attention_layernorm.weight"}
    loaded = load_policy(tmp_path / "out").pi0.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in policy.pi0.state_dict().items())


@pytest.mark.parametrize(
    ("change", "format", "match"),
    [
        ({"positions": "continue"}, "open-pi-zero", r"1 settings .* positions continue \(want restart\)"),
        ({"time_max_period": 100.0, "time_first": False}, "open-pi-zero", "2 settings"),
        ({}, "lerobot", "normalisation: found bounds, want mean_std or quantiles"),
    ],
)
def test_what_a_format_cannot_say_is_not_exported(tmp_path: Path, change: dict[str, object], format: str, match: str) -> None:
    config = load_policy(layouts.write_open_pi_zero(tmp_path / "in", open_pi_zero_tensors())).config
    policy = FlowPolicy.from_config(replace(config, model=replace(config.model, **change)))
    with pytest.raises(UserError, match=match):
        export_policy(policy, tmp_path / "out", format)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_tiny_policy_is_of_no_other_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="to export to open-pi-zero"):
        export_policy(FlowPolicy(), tmp_path / "out", "open-pi-zero")


def test_an_export_replaces_only_its_like(tmp_path: Path) -> None:
    policy = load_policy(layouts.write_open_pi_zero(tmp_path / "in", open_pi_zero_tensors()))
    save_policy(policy, tmp_path / "precious")
    with pytest.raises(UserError, match="no policy folder"):
        export_policy(policy, tmp_path / "precious", "open-pi-zero")
    assert same_policies(load_policy(tmp_path / "precious"), policy)


def test_statistics_of_lerobot_by_their_mode(tmp_path: Path) -> None:
    policy = load_policy(layouts.write_safetensors(tmp_path / "in", pi0_tensors()))
    assert policy.processor.statistics == replace(BRIDGE_STATISTICS, normalisation="quantiles")
    seven = tuple(0.1 * i + 0.05 for i in range(7))
    mean_std = Statistics(action_mean=seven, action_std=seven, proprio_mean=seven, proprio_std=seven, normalisation="mean_std")
    for statistics in (mean_std, policy.processor.statistics):
        policy.processor.statistics = statistics
        export_policy(policy, tmp_path / "out", "lerobot")
        assert load_policy(tmp_path / "out").processor.statistics == statistics
    path = tmp_path / "out" / "policy_preprocessor.json"
    path.write_text(path.read_text().replace('"ACTION": "QUANTILES"', '"ACTION": "MIN_MAX"'))
    with pytest.raises(UserError, match="found QUANTILES for STATE and MIN_MAX for ACTION"):
        load_policy(tmp_path / "out")


def test_statistics_among_the_weights_of_older_files(tmp_path: Path) -> None:
    mean, std = torch.arange(7.0), torch.arange(1.0, 8.0)
    buffers = {
        f"{place}.{key}": value
        for place in ("normalize_inputs.buffer_observation_state", "normalize_targets.buffer_action",
                      "unnormalize_outputs.buffer_action")
        for key, value in (("mean", mean), ("std", std))
    }  # fmt: skip
    policy = load_policy(layouts.write_safetensors(tmp_path / "a", pi0_tensors("older") | buffers))
    assert policy.processor.statistics.pair("action") == (tuple(mean.tolist()), tuple(std.tolist()))
    empty = {name: torch.full((7,), torch.inf) for name in buffers}
    unset = load_policy(layouts.write_safetensors(tmp_path / "b", pi0_tensors("older") | empty))
    assert unset.processor.statistics.normalisation == "quantiles"


def test_loading_takes_the_memory_of_one_copy(tmp_path: Path) -> None:
    sizes = {**SMALL, "vlm": {"w": 512, "m": 4096, "q": 16, "k": 8}}
    tensors = layouts.random_tensors(layouts.open_pi_zero_shapes(sizes, 40_000))
    size = sum(tensor.nbytes for name, tensor in tensors.items() if "proprio." not in name)
    path = layouts.write_open_pi_zero(tmp_path, tensors)
    del tensors
    assert size > 100e6
    ctypes.CDLL(None).malloc_trim(0)  # or memory that earlier tests have freed is used again and not seen
    peak, done, before = 0, threading.Event(), anonymous_bytes()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_bytes() - before)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    policy = load_policy(path)
    done.set()
    watcher.join()
    assert policy.model_config.joint.vlm.width == 512
    assert 0.9 * size < peak < 1.4 * size


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def test_adapters_are_merged_in_a_copy(tmp_path: Path) -> None:
    policy = load_policy(layouts.write_open_pi_zero(tmp_path / "in", open_pi_zero_tensors()))
    before = {name: value.clone() for name, value in policy.pi0.state_dict().items()}
    apply_finetuning(policy, Finetuning(vision="frozen", projector="frozen", vlm="lora", expert="lora", lora_rank=4))
    generator = torch.Generator().manual_seed(0)
    adapters = {name: value for name, value in policy.pi0.named_parameters() if "lora" in name}
    factors = {name: torch.randn(value.shape, generator=generator) * 0.1 for name, value in adapters.items()}
    policy.pi0.load_state_dict(factors, strict=False)
    export_policy(policy, tmp_path / "out", "open-pi-zero")
    assert any("lora" in name for name in policy.pi0.state_dict())
    after = load_policy(tmp_path / "out").pi0.state_dict()
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        pair = factors.get(f"{layer}.lora_B.default.weight"), factors.get(f"{layer}.lora_A.default.weight")
        change = 0 if pair[0] is None or pair[1] is None else pair[0] @ pair[1]
        torch.testing.assert_close(after[name], value + change)
    name = "joint_model.mixtures.vlm.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(after[name], before[name])
