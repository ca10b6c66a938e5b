from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genvla.errors import UserError
from genvla.sim.config import Camera, Gains, SimConfig, load_sim, save_sim, unlike_training


def test_a_set_up_survives_being_kept(tmp_path: Path, sim: SimConfig) -> None:
    assert load_sim(tmp_path) is None
    save_sim(sim, tmp_path)
    assert load_sim(tmp_path) == sim


def test_another_set_up_than_in_training_is_told(tmp_path: Path, sim: SimConfig) -> None:
    assert unlike_training(sim, tmp_path) is None, "no set-up is kept there"
    save_sim(sim, tmp_path)
    assert unlike_training(sim, tmp_path) is None
    x, y, z = sim.camera.position
    other = replace(sim, pad_friction=0.5, camera=replace(sim.camera, position=(x, y + 1, z)))
    assert unlike_training(other, tmp_path) == (
        f"set-up: unlike that of {tmp_path}: camera.position {(x, y + 1, z)} instead of {(x, y, z)}; "
        f"pad_friction 0.5 instead of {sim.pad_friction}"
    )


def test_a_set_up_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_sim(SimConfig(), tmp_path)
    text = (tmp_path / "sim.json").read_text()
    (tmp_path / "sim.json").write_text(text.replace('"sim_hz": 500', '"sim_hz": "fast"'))
    with pytest.raises(UserError, match=r"sim.json: sim_hz: .*'fast'"):
        load_sim(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"sim_hz": 101}, "sim_hz: 101"), ({"image_size": 0}, "image_size: 0"), ({"max_chunks": 0}, "max_chunks: 0")],
)
def test_impossible_values_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SimConfig(**changes)
    with pytest.raises(UserError, match="stiffness: 2 values"):
        Gains(stiffness=(1.0, 2.0))


def test_steps_add_up() -> None:
    assert SimConfig(sim_hz=100).substeps == 20
    assert SimConfig(max_chunks=25).max_steps == 100


def test_the_default_camera_is_bridge_s() -> None:
    """ManiSkill's Bridge camera: 640 x 480, fx = fy = 623.588; squeezed to a square, each focal length shrinks with its side."""
    intrinsics = Camera().intrinsics(224)
    np.testing.assert_allclose(intrinsics[0, 0], 623.588 * 224 / 640, rtol=1e-3)
    np.testing.assert_allclose(intrinsics[1, 1], 623.588 * 224 / 480, rtol=1e-3)
