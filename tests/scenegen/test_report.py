"""The gallery: whole and self-contained whatever a set lacks, its numbers counted again by hand, no text that becomes markup."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import sapien
from hypothesis import given
from hypothesis import strategies as st
from mani_skill.envs.utils.system.backend import parse_sim_and_render_backend
from mani_skill.render.shaders import PREBUILT_SHADER_CONFIGS, set_shader_pack
from PIL import Image

from scenegen.cli import main
from scenegen.errors import UserError
from scenegen.layout.view import EYE, LOOK_AT
from scenegen.loader import load_scene_set
from scenegen.preview import Photographer, pixels
from scenegen.report import figures, write_gallery
from scenegen.report.cards import badges, quantity
from scenegen.report.html import html, tag
from scenegen.report.page import page
from scenegen.report.pictures import Pictures
from scenegen.report.records import read_set
from scenegen.schema import BUILD_LOG, PROVENANCE_FILE, QA_FILE, BuildEvent, Check, FailedAttempt, Provenance, Status, Verdict

EVIL = "<script>alert('1')</script> & <b>\"bold\"</b>"
VOID = {"meta", "img", "input"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A set without verdicts, provenance or log."""
    folder = tmp_path_factory.mktemp("report") / "set"
    options = ["--count", "3", "--seed", "5", "--heldout", "1", "--poses", "8", "--workers", "1"]
    assert main(["build", "--output", str(folder), *options]) == 0
    for name in (QA_FILE, PROVENANCE_FILE, BUILD_LOG):
        for file in folder.rglob(name):
            file.unlink()
    return folder


def verdict(check: Check, subject: str, status: str = "pass", **more: object) -> Verdict:
    reasons = [] if status in ("pass",) else [f"{status} because of {EVIL}"]
    return Verdict.model_validate({"check": check, "subject": subject, "status": status, "reasons": reasons, **more})


@pytest.fixture(scope="module")
def full(plain, tmp_path_factory) -> Path:
    """The same with everything; the first scene needed two attempts, a fourth was rejected, one alignment was skipped."""
    folder = tmp_path_factory.mktemp("report") / "full"
    shutil.copytree(plain, folder)
    events = []
    for i, scene in enumerate(load_scene_set(folder)):
        subjects = [entry.id for entry in scene.objects]
        found = [verdict(check, subject) for subject in subjects for check in figures.PAPER]
        found[2] = verdict(Check.ALIGNMENT, subjects[0], "skip")
        settle = {"share_at_rest": 1.0 if i else 0.5, "runs": 12.0, "penetrations_over_1_mm": 0.0 if i else 3.0, "drift_m": 0.004}
        found += [verdict(Check.SETTLE, "scene", measurements=settle), verdict(Check.TASK, "scene", mode="llm", model="judge-1")]
        failed = []
        if i == 0:
            bad = [verdict(Check.APPEARANCE, subjects[0], "fail"), verdict(Check.GEOMETRY, subjects[0], "error")]
            events.append(event(scene.id, 0, "retry", reasons=[EVIL], stage="checks", verdicts=bad, usd=0.5))
            failed = [FailedAttempt(attempt=0, stage="checks", reasons=[EVIL])]
        events.append(event(scene.id, len(failed), "accepted", verdicts=found, usd=0.25))
        made = {"options": {"xy_range": "0.15"}, "designer": "rules", "engines": {}, "versions": {"a": "1"}}
        origin = Provenance.model_validate({"task": EVIL, "seed": 1, "attempt": len(failed), "failed": failed, **made})
        (scene.folder / PROVENANCE_FILE).write_text(origin.model_dump_json())
        (scene.folder / QA_FILE).write_text(json.dumps([item.model_dump(mode="json") for item in found]))
    events.append(event("s9", 0, "retry", reasons=["no room"], stage="layout"))
    events.append(event("s9", 1, "rejected", reasons=["no room"], stage="layout", task=EVIL))
    (folder / BUILD_LOG).write_text("".join(item.model_dump_json() + "\n" for item in events))
    return folder


def event(scene: str, attempt: int, outcome: str, **more: object) -> BuildEvent:
    seconds = {"assets": 1.0, "layout": 0.5}
    return BuildEvent.model_validate(
        {"scene_id": scene, "task": "t", "attempt": attempt, "outcome": outcome, "seconds": seconds, **more}
    )


class Reader(HTMLParser):
    """What a browser would find: elements with attributes, the text of each, and whether all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attrs)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.elements if found == name]


@pytest.fixture(scope="module")
def photographer() -> Photographer:
    """Kept for the module: shaders are compiled once while one lives."""
    return Photographer()


@pytest.fixture(scope="module")
def written(full, tmp_path_factory, photographer) -> tuple[Path, str, list[tuple[int, int]]]:
    """The gallery of the full set with its pictures, and what the progress was told."""
    told: list[tuple[int, int]] = []
    file = write_gallery(
        full, tmp_path_factory.mktemp("page") / "deep" / "gallery.html", lambda done, total: told.append((done, total))
    )
    return file, file.read_text(encoding="utf-8"), told


def test_self_contained_with_all_pictures(written, full):
    file, text, told = written
    record = read_set(full)
    assets = figures.unique_assets(record)
    found = Reader(text)
    assert not found.open
    images = [attrs["src"] for attrs in found.all("img")]
    thumbs = re.findall(r"\.a\d+\{background-image:url\((data:[^)]*)\)\}", text)
    assert len(images) == len(record.scenes) and len(thumbs) == len(assets)
    assert told[0] == (0, len(images) + len(thumbs)) and told[-1] == (told[0][1], told[0][1])
    for uri, size in [*((uri, (480, 360)) for uri in images), *((uri, (144, 144)) for uri in thumbs)]:
        assert uri.startswith("data:image/webp;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")
        assert picture.size == size and np.asarray(picture).std() > 5  # not one flat colour
    assert not re.search(r"https?://|@import", text)
    assert not [attrs for _, attrs in found.elements for key in ("src", "href") if attrs.get(key, "#")[0] not in "#d"]
    assert not found.all("link") and not found.all("iframe")
    targets = {attrs["id"] for _, attrs in found.elements if attrs.get("id")}
    assert {attrs["href"][1:] for attrs in found.all("a")} <= targets
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert len(text) < 150_000 * len(record.scenes)  # 15 MB for a hundred


def test_free_text_stays_text(written):
    found = Reader(written[1])
    assert len(found.all("script")) == 1
    assert "alert(" not in re.search(r"<script>(.*)</script>", written[1], re.DOTALL)[1]
    assert EVIL in found.text
    assert f"turned down at checks: {EVIL}" in found.text


def test_instruction_with_markup_shows_as_text(plain, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(plain, folder)
    file = next(folder.rglob("scene.json"))
    bundle = json.loads(file.read_text())
    bundle["instruction"] = bundle["graph"]["instruction"] = EVIL
    target = next(node for node in bundle["graph"]["nodes"] if node["role"] == "target")
    target["name"] = "bold"
    file.write_text(json.dumps(bundle))
    found = Reader(page(read_set(folder), Pictures()))
    assert len(found.all("script")) == 1
    assert EVIL in found.text
    assert any(attrs.get("data-text", "").startswith(EVIL.lower()) for attrs in found.all("article"))
    assert {"class": "target"} in found.all("mark")


def test_rates_are_of_first_attempts(full):
    record = read_set(full)
    rates = figures.rates(figures.first_verdicts(record.events))
    others = sum(len(scene.scene.objects) for scene in record.scenes[1:])
    appearance, geometry = rates[Check.APPEARANCE, "offline"], rates[Check.GEOMETRY, "offline"]
    assert appearance.statuses == {Status.FAIL: 1, Status.PASS: others} and appearance.share == others / (others + 1)
    assert geometry.statuses == {Status.ERROR: 1, Status.PASS: others} and geometry.share == others / (others + 1)
    assert rates[Check.ALIGNMENT, "offline"].judged == others - 2 and rates[Check.ALIGNMENT, "offline"].share == 1
    assert rates[Check.SETTLE, "offline"].judged == 2 and rates[Check.TASK, "llm"].judged == 2
    assert figures.accepted_share(record) == (3, 4)
    assert [item.scene_id for item in record.rejected] == ["s9"]


def test_page_says_the_rates(full):
    said = " ".join(Reader(page(read_set(full), Pictures())).text.split())
    others = sum(len(scene.scene.objects) for scene in read_set(full).scenes[1:])
    assert f"{100 * others / (others + 1):.1f} % of {others + 1} assets83.3 %" in said
    assert "75.0 % of 4 scenes85 % usable" in said and "50.0 % of 4 scenes" in said
    assert "$1.25" in said and "3 attempts were turned down" in said


def test_standing_counts_objects_and_runs(full):
    record = read_set(full)
    counts = [len(scene.scene.objects) for scene in record.scenes]
    now = figures.standing(record)
    assert now.objects_at_rest == pytest.approx((0.5 * counts[0] + sum(counts[1:])) / sum(counts))
    assert now.runs_clear == pytest.approx(1 - 3 / 36)
    assert now.seen is None and now.at_rest == 3 and now.penetrating == 0
    assert now.goal_in_view == 1.0  # the layout keeps them in the picture
    assert 0.1 < now.reach_m[0] < now.reach_m[1] < 0.6


def test_diversity_is_counted_again(full):
    record = read_set(full)
    found = figures.diversity(record)
    assets = record.assets
    assert found.objects == len(assets) and found.unique == len({asset.asset_id for asset in assets})
    assert sum(n * count for n, count in found.histogram.items()) == found.objects
    assert found.per_scene == found.objects / 3
    assert found.categories.total() == found.colors.total() == found.materials.total() == found.unique
    assert found.tables.total() == found.rooms.total() == found.goals.total() == 3
    assert len({(asset.category, asset.color) for asset in assets}) <= found.distinct <= found.unique


def test_near_duplicates_count_once(plain):
    record = read_set(plain)
    asset = record.assets[0]
    wide, wider = (asset.model_copy(update={"extents_m": tuple(f * v for v in asset.extents_m)}) for f in (1.04, 1.2))
    other = asset.model_copy(update={"color": "elsewhere"})
    assert figures._distinct([asset, wide]) == 1
    assert figures._distinct([asset, wide, wider, other]) == 3


def test_set_without_anything_says_so(plain):
    found = Reader(page(read_set(plain), Pictures(note="No pictures were taken: EVIL <i>driver</i>")))
    for said in (
        f"no {BUILD_LOG}",
        f"3 of 3 scenes have no {QA_FILE}",
        f"3 of 3 scenes have no {PROVENANCE_FILE}",
        "<i>driver</i>",
    ):
        assert said in found.text, said
    assert not found.open and len(found.all("article")) == 3 and not found.all("img")
    assert Counter(attrs["data-split"] for attrs in found.all("article")) == {"train": 2, "heldout": 1}
    assert "accepted in the end" not in found.text


def test_page_is_written_without_a_vulkan_driver(plain, tmp_path):
    file = tmp_path / "page.html"
    code = f"from scenegen.report import write_gallery; write_gallery({str(plain)!r}, {str(file)!r})"
    away = {name: str(tmp_path / "none.json") for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES")}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **away, "PYTHONPATH": str(root)}, cwd=root)
    found = Reader(file.read_text(encoding="utf-8"))
    assert "No pictures were taken" in found.text and "Vulkan" in found.text
    assert len(found.all("article")) == 3


def test_same_set_same_page(full):
    assert page(read_set(full), Pictures()) == page(read_set(full), Pictures())
    assert str(full) not in page(read_set(full), Pictures())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (QA_FILE, "[{}]", "check"),
        (QA_FILE, "nothing", "Invalid JSON"),
        (PROVENANCE_FILE, '{"task": 3}', "task"),
        (BUILD_LOG, '\n{"scene_id": "NO"}\n', f"{BUILD_LOG}:2: scene_id"),
    ],
)
def test_malformed_files_are_named(full, tmp_path, name, content, said):
    folder = tmp_path / "set"
    shutil.copytree(full, folder)
    next(folder.rglob(name)).write_text(content)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        read_set(folder)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_bad_output_is_named(plain, tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        write_gallery(plain, tmp_path)
    with pytest.raises(UserError, match="not found"):
        write_gallery(tmp_path)


@given(st.lists(st.text(max_size=20) | st.none() | st.integers(), max_size=3), st.text(max_size=20))
def test_text_survives_and_never_becomes_markup(content, attribute):
    text = tag("p", content, title=attribute, data_x=attribute)
    assert text == f"<p{text[2 : text.index('>')]}>{html(content)}</p>"
    assert not re.search(r"[<>]", html(content)) and text.count("<") == text.count(">") == 2
    if not re.search(r"[\r\x00]", attribute):
        found = Reader(text)
        assert found.elements == [("p", {"title": attribute, "data-x": attribute})]


def test_badges_show_the_worst():
    found = [verdict(Check.GEOMETRY, "a"), verdict(Check.GEOMETRY, "b", "fail"), verdict(Check.ALIGNMENT, "a", "skip")]
    reader = Reader(badges(found))
    assert [attrs["class"] for attrs in reader.all("details")] == ["badge fail", "badge skip"]
    assert "geometry 1/2" in reader.text and EVIL in reader.text and EVIL in reader.all("summary")[0]["title"]
    assert "not checked" in Reader(badges(None)).text


def test_quantities():
    assert quantity("drift_m", 0.0021) == ["drift", "2.1 mm"] and quantity("mass_kg", 0.05) == ["mass", "50 g"]
    assert quantity("tilt_deg", 1.5, 2) == ["tilt", "1.5°", "2°"]
    assert quantity("penetrations_over_1_mm", 2) == ["penetrations over 1 mm", "2"] and quantity("runs", 12) == ["runs", "12"]


def test_pixels_are_where_the_camera_sees_them(plain, photographer):
    """The middle by definition; anything else by looking for an object that is taken out of the picture."""
    scene = next(iter(load_scene_set(plain)))
    base = np.asarray(scene.bundle.robot.base_pose.p)
    assert pixels(scene, (base + LOOK_AT)[None]) == pytest.approx(np.array([[0.5, 0.5]]))
    assert pixels(scene, (base + np.array(EYE) + 3 * np.subtract(LOOK_AT, EYE))[None]) == pytest.approx(np.array([[0.5, 0.5]]))
    with_it = photographer.take(scene, 0, 160, 120).astype(int)
    gone = scene.poses.copy()
    gone[:, scene.target_index, 2] = -5
    without = photographer.take(type(scene)(**{**vars(scene), "poses": gone}), 0, 160, 120).astype(int)
    rows, columns = np.nonzero(np.abs(with_it - without).max(axis=-1) > 60)
    asset = scene.objects[scene.target_index].asset
    middle = scene.poses[0, scene.target_index, :3].astype(float) + [0, 0, asset.extents_m[2] / 2]
    place = pixels(scene, middle[None])[0] * [160, 120]
    assert np.hypot(*(place - [columns.mean(), rows.mean()])) < 8


def test_it_lives_in_a_process_with_environments(plain, photographer):
    """ManiSkill sets the shaders of the process, and names its device; all of a process must name the same."""
    scene, before = next(iter(load_scene_set(plain))), sapien.render.get_camera_shader_dir()
    own = photographer.take(scene, 0, 96, 72)
    try:
        set_shader_pack(PREBUILT_SHADER_CONFIGS["minimal"])
        again = photographer.take(scene, 0, 96, 72)
        assert np.abs(own.astype(int) - again).max() <= 1  # of 255: bytes, averaged, instead of floats
        assert sapien.render.get_camera_shader_dir().endswith("minimal")
    finally:
        set_shader_pack(PREBUILT_SHADER_CONFIGS["default"])
        sapien.render.set_camera_shader_dir(before)
    device = parse_sim_and_render_backend("cpu", "gpu").render_device
    assert sapien.render.RenderSystem(device).device == device


def test_pictures_are_the_same_again_and_not_burnt_out(plain, photographer):
    scene = next(iter(load_scene_set(plain)))
    one, other = (photographer.take(scene, 0, 96, 72, robot=True) for _ in range(2))
    assert np.array_equal(one, other)
    assert (one >= 250).all(axis=-1).mean() < 0.01 and 60 < one.mean() < 200
    bare = photographer.take(scene, 0, 96, 72)
    assert (np.abs(one.astype(int) - bare).max(axis=-1) > 40).mean() > 0.03  # the arm
    view = photographer.asset_view(scene.objects[0].visual, 64)
    assert view.shape == (64, 64, 3) and np.array_equal(view, photographer.asset_view(scene.objects[0].visual, 64))
    edge = np.concatenate([view[0], view[:, -1]]).astype(int)
    assert edge.min() > 120 and edge.std() < 25  # backdrop all around, at most in shadow
