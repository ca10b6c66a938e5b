"""Checkpoints that are damaged, of something else, or hostile: one plain line each."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from genvla.cli import main
from genvla.errors import UserError
from genvla.policy.checkpoints import load_policy
from tests.policy import layouts
from tests.policy.layouts import SMALL

OPEN_PI_ZERO = layouts.open_pi_zero_shapes(SMALL, 300)
LEROBOT = layouts.pi0_shapes(SMALL, 300, layout="lerobot")
PALIGEMMA = layouts.paligemma_shapes(SMALL, 300)
FREE = re.compile(r"(embed_tokens|lm_head|proprio_encoder|state_proj|norm)\.weight$")
"""Tensors that may have another size in another model (rows of text, entries of proprioception), or that the format ignores."""


def write(folder: Path, kind: str, tensors: dict[str, Tensor]) -> Path:
    if kind == "open-pi-zero":
        return layouts.write_open_pi_zero(folder, tensors)
    return layouts.write_safetensors(folder, tensors)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert "\n" not in message and str(path.parent if path.is_file() else path) in message
    return message


@pytest.mark.parametrize("kind", ["open-pi-zero", "lerobot", "paligemma"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_damaged_tensor_is_counted_and_the_first_are_named(
    kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shapes = {"open-pi-zero": OPEN_PI_ZERO, "lerobot": LEROBOT, "paligemma": PALIGEMMA}[kind]
    solid = [name for name in shapes if not FREE.search(name) and "expert.lm_head" not in name and "proprio." not in name]
    chosen = data.draw(st.lists(st.sampled_from(solid), min_size=0, max_size=7, unique=True))
    added = data.draw(st.lists(st.sampled_from(["surprise", "joint_model.mixtures.vlm.layers.9.x", "model.vision_tower.y",
                                                "action_encoder.linear_4.weight"]), max_size=3, unique=True))  # fmt: skip
    split = data.draw(st.integers(0, len(chosen)))
    gone, bent = chosen[:split], chosen[split:]
    assume(gone + bent + added)
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in gone}
    for name in bent:
        axis = data.draw(st.integers(0, len(shapes[name]) - 1))
        tensors[name] = torch.zeros([size + 1 if i == axis else size for i, size in enumerate(shapes[name])])
    message = refusal(write(tmp_path_factory.mktemp("bad"), kind, tensors | {name: torch.zeros(3) for name in added}))
    for names, title in ((gone, "missing"), (added, "unexpected"), (bent, "of another shape")):
        found = re.search(rf"(\d+) {title}: ([^;]*)", message)
        assert (int(found[1]) if found else 0) == len(names), (title, message)
        if found:
            called = {re.sub(r"^model\.(?=paligemma|state|action)", "", name) for name in names}
            listed = [re.sub(r"^model\.(?=paligemma|state|action)", "", name) for name in re.findall(r"[\w.]{6,}", found[2])]
            assert len(set(listed) & called) == min(3, len(names)), (title, message)


def test_a_vanished_or_reshaped_part_of_the_alias_is_named(tmp_path: Path) -> None:
    name = "joint_model.mixtures.proprio.layers.0.mlp.up_proj.weight"
    tensors = layouts.random_tensors(OPEN_PI_ZERO)
    assert f"1 missing: {name}" in refusal(
        write(tmp_path / "a", "open-pi-zero", {key: value for key, value in tensors.items() if key != name})
    )
    changed = tensors | {name: tensors[name] + 1}
    assert f"found 1 ({name}) different" in refusal(write(tmp_path / "b", "open-pi-zero", changed))
    alone = {key: value for key, value in tensors.items() if "mixtures.proprio." not in key}
    load_policy(write(tmp_path / "c", "open-pi-zero", alone))


def test_a_tensor_with_and_without_its_wrapper_is_refused(tmp_path: Path) -> None:
    tensors = layouts.random_tensors(OPEN_PI_ZERO)
    message = refusal(write(tmp_path, "open-pi-zero", tensors | {"_orig_mod.action_decoder.bias": torch.zeros(7)}))
    assert "found 1 tensors twice" in message


def test_two_different_embeddings_are_refused(tmp_path: Path) -> None:
    tensors = layouts.random_tensors(layouts.pi0_shapes(SMALL, 300, layout="openpi"))
    tensors["paligemma_with_expert.paligemma.lm_head.weight"] = tensors["paligemma_with_expert.paligemma.lm_head.weight"] + 1
    assert "under two names" in refusal(write(tmp_path, "openpi", tensors))


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_pickle_is_never_executed(tmp_path: Path, suffix: str) -> None:
    mark, path = tmp_path / "executed", tmp_path / f"evil{suffix}"
    torch.save({"model": layouts.random_tensors(OPEN_PI_ZERO), "cnt_update": Trap(mark)}, path)
    assert "would have to execute; not loaded" in refusal(path)
    path.write_bytes(pickle.dumps({"model": Trap(mark)}))
    refusal(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the trap is a real one
    assert mark.exists()


@pytest.mark.parametrize("kind", ["open-pi-zero", "lerobot"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    shapes = OPEN_PI_ZERO if kind == "open-pi-zero" else LEROBOT
    path = write(tmp_path, kind, layouts.random_tensors(shapes))
    file = path if path.is_file() else path / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert "cannot be read as" in refusal(path) or share == 0.1


def test_checkpoints_of_other_models_are_refused(tmp_path: Path) -> None:
    other = {"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}
    assert "another model: 2 (conv1.weight, fc.bias)" in refusal(write(tmp_path / "a", "lerobot", other))
    assert "another model" in refusal(layouts.write_open_pi_zero(tmp_path / "b", other))
    later = layouts.random_tensors(LEROBOT) | {"model.paligemma_with_expert.gemma_expert.model.norm.dense.weight": torch.zeros(3)}
    assert "found pi0.5" in refusal(write(tmp_path / "c", "lerobot", later))
    torch.save({"model": [1, 2]}, tmp_path / "list.pt")
    assert "found no tensors" in refusal(tmp_path / "list.pt")
    quantised = layouts.random_tensors(OPEN_PI_ZERO) | {"proprio_encoder.bias": torch.zeros(16, dtype=torch.uint8)}
    assert "found 1 (proprio_encoder.bias torch.uint8)" in refusal(layouts.write_open_pi_zero(tmp_path / "d", quantised))
    fractal = layouts.random_tensors(OPEN_PI_ZERO) | {"proprio_encoder.weight": torch.zeros(16, 8)}
    assert "8 of proprioception, want 7 and 7" in refusal(layouts.write_open_pi_zero(tmp_path / "e", fractal))


def test_folders_that_do_not_say_what_to_load(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "want a policy folder" in refusal(tmp_path / "empty")
    (tmp_path / "two").mkdir()
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / "two" / name)
    assert "found 2 weights files (a.pt, b.pt)" in refusal(tmp_path / "two")
    (tmp_path / "shards").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "shards" / "one.safetensors")
    index = tmp_path / "shards" / "model.safetensors.index.json"
    for content, match in (
        ({"weight_map": {"x": "one.safetensors", "y": "two.safetensors"}}, "two.safetensors: no such file"),
        ({"weight_map": {"x": "one.safetensors", "y": "one.safetensors"}}, "found no y"),
        ({"weight_map": {"x": "../one.safetensors"}}, "weight_map"),
        ({}, "weight_map"),
    ):
        index.write_text(json.dumps(content))
        assert match in refusal(tmp_path / "shards")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "no JSON"),
        ("[1]", "want an object"),
        ('{"action": {"p01": [0]}}', "action.p01: want|action.p99: want"),
        (json.dumps({n: {"p01": [0.0] * 6, "p99": [1.0] * 6} for n in ("action", "proprio")}), "found 6 and 6 values, want 7"),
        (json.dumps({n: {"p01": [1.0] * 7, "p99": [0.0] * 7} for n in ("action", "proprio")}), "want finite p01 < p99"),
        (json.dumps({n: {"p01": [0.0] * 7, "p99": ["x"] * 7} for n in ("action", "proprio")}), "list of numbers"),
        (json.dumps({n: {"p01": [0.0] * 7, "p99": [float("nan")] * 7} for n in ("action", "proprio")}), "want finite"),
    ],
)
def test_wrong_statistics_are_named(tmp_path: Path, content: str, match: str) -> None:
    path = layouts.write_open_pi_zero(tmp_path, layouts.random_tensors(OPEN_PI_ZERO))
    (tmp_path / "bridge_statistics.json").write_text(content)
    message = refusal(path)
    assert "bridge_statistics.json" in message and re.search(match, message)


def test_wrong_statistics_of_openpi_and_a_wrong_horizon(tmp_path: Path) -> None:
    folder = layouts.write_safetensors(tmp_path, layouts.random_tensors(LEROBOT), {"type": "pi0", "chunk_size": 0})
    assert "chunk_size: found 0" in refusal(folder)
    (folder / "config.json").unlink()
    stats = {name: {"mean": [0.0] * 7, "std": [0.0] * 7} for name in ("state", "actions")}
    stats["state"]["std"][3] = -1.0
    (folder / "norm_stats.json").write_text(json.dumps({"norm_stats": stats}))
    assert "std > 0" in refusal(folder)


def test_the_command_exports_and_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.write_open_pi_zero(tmp_path / "in", layouts.random_tensors(OPEN_PI_ZERO))
    words = ["export", "--checkpoint", str(path), "--output", str(tmp_path / "out"), "--format"]
    assert main([*words, "genvla"]) == 0
    assert "parameters in the format genvla" in capsys.readouterr().out
    assert load_policy(tmp_path / "out").processor.config.tokenizer == "paligemma"
    assert main([*words, "lerobot"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("genvla: error: ") and error.count("\n") == 1
    assert main([*words, "open-pi-zero", "--dtype", "bfloat16", "--output", str(tmp_path / "half")]) == 0
    assert {value.dtype for value in load_policy(tmp_path / "half").pi0.state_dict().values()} == {torch.bfloat16}
