from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genvla.errors import UserError
from genvla.policy.checkpoints import load_config, load_policy, save_policy
from genvla.policy.heads import HeadsConfig
from genvla.policy.processor import Statistics


def test_a_policy_comes_back_as_it_was(small_policy, inputs_of, tmp_path: Path) -> None:
    policy = small_policy(HeadsConfig(value_input="privileged"), draws=2)
    policy.integration_steps = 3
    rng = np.random.default_rng(0)
    policy.processor.statistics = Statistics.fit(rng.normal(size=(100, 7)), rng.normal(size=(100, 7)))
    save_policy(policy, tmp_path / "runs" / "best")
    loaded = load_policy(tmp_path / "runs" / "best")
    assert loaded.config == policy.config
    inputs = inputs_of(policy)
    ours, theirs = (p.act(inputs, generator=torch.Generator().manual_seed(5)) for p in (policy, loaded))
    for name in ("chain", "log_prob", "value", "actions"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    loaded.evaluate_actions(inputs, theirs.chain).log_prob.sum().backward()
    assert loaded.pi0.action_decoder.weight.grad is not None
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["best"]


def test_saving_replaces_and_keeps_precision(small_policy, tmp_path: Path) -> None:
    save_policy(small_policy(), tmp_path / "p")
    second = small_policy().to(torch.bfloat16)
    save_policy(second, tmp_path / "p")
    loaded = load_policy(tmp_path / "p").state_dict()
    assert all(
        torch.equal(value, loaded[key]) and loaded[key].dtype == torch.bfloat16 for key, value in second.state_dict().items()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["config.json", "model.safetensors"]


def test_saving_never_replaces_something_else(small_policy, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="no policy folder"):
        save_policy(small_policy(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.fixture
def saved(small_policy, tmp_path: Path) -> Path:
    save_policy(small_policy(), tmp_path / "p")
    return tmp_path / "p"


def test_every_weight_that_does_not_fit_is_counted(saved: Path) -> None:
    state = load_file(saved / "model.safetensors")
    del state["pi0.action_decoder.bias"], state["pi0.proprio_encoder.bias"]
    state["pi0.surprise"] = torch.zeros(1)
    state["pi0.action_decoder.weight"] = torch.zeros(3, 3)
    save_file(state, saved / "model.safetensors")
    with pytest.raises(UserError) as caught:
        load_policy(saved)
    message = str(caught.value)
    assert "\n" not in message and str(saved / "model.safetensors") in message
    assert "2 missing: pi0.proprio_encoder.bias, pi0.action_decoder.bias" in message
    assert "1 unexpected: pi0.surprise" in message
    assert "1 of another shape: pi0.action_decoder.weight (found (3, 3), want (7, 32))" in message


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("version",), 99, "version: found 99, want 1"),
        (("format",), "other", "format"),
        (("model", "horizon"), "four", r"config.model.horizon: found 'four', want int"),
        (("model", "positions"), "anew", "'restart' or 'continue'"),
        (("heads", "colour"), 1, r"config.heads: found \['colour'\]"),
        (("model", "joint", "vlm"), {}, "want width, mlp"),
        (("statistics", "action_p01"), [1.0], "found 1 and 7 values, want 7"),
        (("heads", "log_sigma_min"), 3.0, "log_sigma_min"),
    ],
)
def test_a_broken_config_is_named(saved: Path, path: tuple[str, ...], value: object, match: str) -> None:
    document = json.loads((saved / "config.json").read_text())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (saved / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=match) as caught:
        load_policy(saved)
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_unreadable_files_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_policy(tmp_path / "nowhere")
    (saved / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_policy(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no such file"):
        load_policy(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        load_config(saved)


def test_optional_numbers_survive(small_policy, tmp_path: Path) -> None:
    joint = small_policy().model_config.joint
    policy = small_policy(joint=replace(joint, softcap=None))
    save_policy(policy, tmp_path / "p")
    assert load_config(tmp_path / "p").model.joint.softcap is None
