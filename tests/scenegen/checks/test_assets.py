"""The asset checks over the families: no false alarm, and what is painted or called otherwise is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scenegen.checks.appearance import closeness
from scenegen.checks.files import AssetOnDisk
from scenegen.checks.references import describe, distances, references
from scenegen.checks.run import accepted, check_asset
from scenegen.engines.procedural.catalog import FULL
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.palette import PALETTE, lab, rgb
from scenegen.schema import AssetRecord, Check, NodeSpec, Relation, Role, Status
from scenegen.seeds import generator


def made(category: str, seed: int, folder: Path, **asked: object) -> tuple[NodeSpec, AssetRecord]:
    family = FULL.families[category]
    color = str(generator(seed, "color").choice(family.colors))
    description = f"a {color} {category}" if len(family.colors) > 1 else f"a {category}"
    spec = NodeSpec(
        id="thing",
        name=category,
        role=Role.DISTRACTOR,
        category=category,
        description=description,
        color=color,
        graspable=family.graspable,
        container=Relation.IN in family.relations,
        **asked,  # type: ignore[arg-type]
    )
    return spec, ProceduralEngine().generate(spec, seed, 0, folder)


@pytest.mark.parametrize("category", FULL.families)
def test_no_false_alarm(category: str, tmp_path: Path):
    size = ("small", "large")[len(category) % 2]
    node, record = made(category, 11, tmp_path, size=size)
    verdicts = check_asset(node, record, tmp_path)
    assert [v for v in verdicts if v.status is not Status.PASS] == []
    assert accepted(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("category", FULL.families)
def test_no_false_alarm_over_many_seeds(category: str, tmp_path: Path):
    for seed in range(20):
        node, record = made(category, seed, tmp_path / str(seed))
        assert [v for v in check_asset(node, record, tmp_path / str(seed)) if v.status is not Status.PASS] == []


UNLIKE = [("mug", "plate"), ("marker", "apple"), ("bowl", "banana"), ("block", "pan"), ("carrot", "tray"), ("towel", "can")]


@pytest.mark.parametrize(("category", "called"), [*UNLIKE, *(pair[::-1] for pair in UNLIKE)])
def test_what_is_called_something_unlike_is_not_aligned(category: str, called: str, tmp_path: Path):
    node, record = made(category, 3, tmp_path)
    swapped, label = node.model_copy(update={"category": called}), record.model_copy(update={"category": called})
    verdict = next(v for v in check_asset(swapped, label, tmp_path) if v.check is Check.ALIGNMENT)
    assert verdict.status is Status.FAIL and f"rather than a {called}'s" in verdict.reasons[0]


def test_unknown_category_is_skipped_never_passed(tmp_path: Path):
    node, record = made("mug", 3, tmp_path)
    verdicts = check_asset(
        node.model_copy(update={"category": "astrolabe"}), record.model_copy(update={"category": "astrolabe"}), tmp_path
    )
    assert [v.status for v in verdicts] == [Status.PASS, Status.PASS, Status.SKIP]
    assert "no reference for 'astrolabe'" in verdicts[2].reasons[0] and accepted(verdicts)
    geometry_skipped = verdicts[1].model_copy(update={"status": Status.SKIP})
    assert not accepted([verdicts[0], geometry_skipped, verdicts[2]])


def test_a_check_that_breaks_is_an_error_and_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node, record = made("mug", 3, tmp_path)

    def broken(self: AssetOnDisk) -> None:
        raise MemoryError("first line\nsecond line")

    monkeypatch.setattr(AssetOnDisk, "visual", property(broken))
    verdicts = check_asset(node, record, tmp_path)
    assert [v.status for v in verdicts] == [Status.ERROR] * 3 and not accepted(verdicts)
    assert {reason for v in verdicts for reason in v.reasons} == {"MemoryError: first line"}


def test_missing_file_fails_by_its_name(tmp_path: Path):
    node, record = made("mug", 3, tmp_path)
    (tmp_path / record.files.collision).unlink()
    verdicts = {v.check: v for v in check_asset(node, record, tmp_path)}
    assert verdicts[Check.APPEARANCE].status is Status.PASS
    assert verdicts[Check.GEOMETRY].reasons == ["thing_collision.obj: missing"]


def test_closeness_of_flat_colours():
    for name in ("red", "white", "black"):
        assert closeness(np.tile(rgb(name), (10, 1)), name) == (1.0, pytest.approx(0, abs=1e-9))
    half = np.concatenate([np.tile(rgb("red"), (6, 1)), np.tile(rgb("blue"), (4, 1))])
    assert closeness(half, "red")[0] == 0.6 and closeness(half, "blue")[0] == 0.4
    assert closeness(half, "blue")[1] == pytest.approx(np.linalg.norm(lab(rgb("red")) - lab(rgb("blue"))))
    assert set(PALETTE) >= {"red", "blue"}


def test_descriptors_leave_out_size_and_place_and_yaw(tmp_path: Path):
    _, record = made("mug", 3, tmp_path)
    disk = AssetOnDisk(record, tmp_path)
    plain = describe(disk.visual, disk.solid)
    path, collision = (tmp_path / name for name in (record.files.visual, record.files.collision))
    angle = np.radians(35)
    turn = 1.7 * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for file in (path, collision):
        lines = [line.split() for line in file.read_text().splitlines()]
        moved = [["v", *map(str, turn @ np.array(p[1:4], float) + [0.1, 0.2, 0])] if p[0] == "v" else p for p in lines]
        file.write_text("\n".join(" ".join(p) for p in moved))
    again = AssetOnDisk(record, tmp_path)
    assert distances(plain, describe(again.visual, again.solid)) < 0.01
    assert distances(plain, references("plate").descriptors).min() > 0.1  # type: ignore[union-attr]
