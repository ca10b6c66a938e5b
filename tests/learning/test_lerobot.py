"""Datasets in lerobot's format: read with pyarrow, pandas and OpenCV as the format says, and with lerobot where that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.learning.demonstrations import DemonstrationSet
from genvla.learning.imitation import ImitationModule
from genvla.learning.lerobot.layout import FPS, Images, shard
from genvla.learning.lerobot.reader import read_dataset
from genvla.learning.lerobot.statistics import histogram, of_pictures, of_rows
from genvla.learning.lerobot.writer import DatasetWriter
from genvla.learning.pretrain import new_policy
from genvla.sim.expert import Demonstration
from genvla.types import PRIVILEGED_NAMES, EpisodeRecord
from tests.learning.test_imitation import data, toy_config

CAMERA = "observation.images.base_0_rgb"
SIDE = 16


def episode(seed: int, length: int = 6, success: bool = True, task: str = "put the cube on the plate") -> Demonstration:
    """Smooth pictures with colours and a moving edge; vectors of noise."""
    draw = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, SIDE)
    images = np.empty((length, 1, SIDE, SIDE, 3), np.uint8)
    for t in range(length):
        images[t, 0] = np.stack(np.broadcast_arrays(ramp, ramp[:, None], 40.0 * seed), axis=-1)
        images[t, 0, : 2 + t % 8, :4] = (200, 30, 90)
    proprio, actions = draw.normal(size=(2, length, 7))
    actions[:, 6] = np.arange(length) % 2
    record = EpisodeRecord(f"s{seed // 2}", 2**62 + seed, success, success, success, length - 2 if success else length, 2, task)
    return Demonstration(record, images, proprio, draw.normal(size=(length, len(PRIVILEGED_NAMES))), actions)


EPISODES = [episode(0, 6), episode(1, 9, task="put the pear in the bowl"), episode(2, 5, success=False), episode(3, 7)]


def write(folder: Path, images: Images = "lossless", episodes: list[Demonstration] = EPISODES) -> Path:
    folder.mkdir()
    writer = DatasetWriter(folder, images)
    for one in episodes:
        writer.add(one)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("datasets")
    kinds: tuple[Images, ...] = ("video", "lossless", "png")
    return {images: write(root / images, images) for images in kinds}


def info_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta/info.json").read_text())


def test_the_files_are_those_of_the_format(written: dict[str, Path]) -> None:
    for images, folder in written.items():
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        meta = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet"}
        video = set() if images == "png" else {f"videos/{CAMERA}/chunk-000/file-000.mp4"}
        assert files == meta | video | {"data/chunk-000/file-000.parquet"}
        info = info_of(folder)
        assert (info["codebase_version"], info["fps"]) == ("v3.0", 5)
        assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 27, 2)
        assert info["features"][CAMERA]["dtype"] == ("image" if images == "png" else "video")
        assert info["features"][CAMERA]["shape"] == [SIDE, SIDE, 3]
        assert info["features"]["observation.state"]["names"] == ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


def test_rows_are_control_steps(written: dict[str, Path]) -> None:
    table = pd.read_parquet(written["video"] / "data/chunk-000/file-000.parquet")
    info = info_of(written["video"])
    assert set(table) == {name for name, feature in info["features"].items() if feature["dtype"] != "video"}
    assert table["index"].tolist() == list(range(27))
    tasks = pd.read_parquet(written["video"] / "meta/tasks.parquet")
    first = 0
    for number, one in enumerate(EPISODES):
        length, record = len(one.actions), one.record
        rows = table.iloc[first : first + length]
        first += length
        assert rows["episode_index"].eq(number).all() and rows["scene_id"].eq(record.scene_id).all()
        assert rows["seed"].eq(record.seed).all()
        assert rows["frame_index"].tolist() == list(range(length))
        np.testing.assert_allclose(rows["timestamp"], np.arange(length) / FPS, atol=1e-7)
        np.testing.assert_allclose(np.stack(rows["observation.state"].tolist()), one.proprio, rtol=1e-6)
        np.testing.assert_allclose(np.stack(rows["action"].tolist()), one.actions, rtol=1e-6)
        np.testing.assert_allclose(np.stack(rows["privileged"].tolist()), one.privileged, rtol=1e-6)
        assert rows["next.done"].tolist() == [False] * (length - 1) + [True]
        assert [tasks.index[i] for i in rows["task_index"]] == [record.instruction] * length
        won = [record.success_once and t + 1 >= record.steps for t in range(length)]
        assert rows["next.success"].tolist() == won
        assert rows["next.reward"].tolist() == [float(record.success_once and t + 1 == record.steps) for t in range(length)]


def test_the_table_of_episodes_leads_to_the_pictures(written: dict[str, Path]) -> None:
    """With OpenCV's decoder, in file order: frame k of the file is shown at k / 5 seconds."""
    for images, worst in (("video", 7.0), ("lossless", 0.0)):
        folder = written[images]
        capture = cv2.VideoCapture(str(folder / f"videos/{CAMERA}/chunk-000/file-000.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == 5
        frames = []
        while (read := capture.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        assert len(frames) == 27
        for row in pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist():
            one, start = EPISODES[row["episode_index"]], round(row[f"videos/{CAMERA}/from_timestamp"] * 5)
            assert row["length"] == len(one.actions) == row["dataset_to_index"] - row["dataset_from_index"]
            assert start == row["dataset_from_index"] and row["tasks"] == [one.record.instruction]
            assert row[f"videos/{CAMERA}/to_timestamp"] == (start + row["length"]) / 5
            shown = np.stack(frames[start : start + row["length"]]).astype(int)
            assert np.abs(shown - one.images[:, 0]).mean() <= worst


def test_statistics_are_those_of_numpy(written: dict[str, Path]) -> None:
    stats = json.loads((written["png"] / "meta/stats.json").read_text())
    actions = np.concatenate([one.actions for one in EPISODES]).astype(np.float32)
    pixels = np.concatenate([one.images for one in EPISODES]).reshape(-1, 3) / 255
    for name, values, found in (("actions", actions, stats["action"]), ("pixels", pixels, stats[CAMERA])):
        for statistic, wanted in (
            ("min", values.min(0)),
            ("max", values.max(0)),
            ("mean", values.mean(0)),
            ("std", values.std(0)),
        ):
            np.testing.assert_allclose(np.ravel(found[statistic]), wanted, atol=1e-6, err_msg=f"{name} {statistic}")
    assert stats["action"]["count"] == stats[CAMERA]["count"] == [27]
    assert np.shape(stats[CAMERA]["q01"]) == (3, 1, 1)
    assert "scene_id" not in stats


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_quantiles_of_pictures(frames: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, draw.integers(2, 257), (frames, 5, 7, 3)).astype(np.uint8)
    found = of_pictures(histogram(images), frames)
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        wanted = np.quantile(images.reshape(-1, 3), share, axis=0, method="inverted_cdf") / 255
        np.testing.assert_allclose(np.ravel(found[name]), wanted)
    assert of_rows(np.array([[1.0], [3.0]]))["std"] == [1.0]


@pytest.mark.parametrize("images", ["png", "lossless"])
def test_reading_gives_back_what_was_written(written: dict[str, Path], images: str) -> None:
    """As the native path gathers them: what failed is left out."""
    native, found = DemonstrationSet.gather(EPISODES), read_dataset(written[images])
    assert (found.successes, found.instructions) == (3, native.instructions)
    for name in ("images", "proprio", "privileged", "actions", "episode", "task"):
        np.testing.assert_array_equal(getattr(found, name), getattr(native, name), err_msg=name)


def test_pretraining_has_the_same_loss(tmp_path: Path) -> None:
    """The toy expert's demonstrations, natively and by way of a dataset: batch for batch the same losses, to the last bit."""
    native = data(tmp_path)
    native.setup()
    episodes = sorted(
        (one for one in native.env.demonstrate(native.specs(), native.noise) if one.record.success_once),
        key=lambda one: (one.record.scene_id, one.record.seed),
    )
    imported = data(tmp_path, lerobot=write(tmp_path / "dataset", "lossless", episodes))
    assert imported.statistics() == native.statistics()

    def losses(source: Any) -> list[float]:
        module = ImitationModule(new_policy(toy_config(), source, seed=0))
        optimizer = module.configure_optimizers()
        source.collect(module, 0)
        module.start_iteration(0, 1, optimizer)
        return [module.training_step(batch)["loss"].item() for batch in source.train_dataloader()]

    assert losses(imported) == losses(native)


def test_others_datasets_know_no_success_and_no_simulator(written: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(written["png"], tmp_path)
    edit_info(folder, lambda info: [info["features"].pop(name) for name in ("privileged", "next.success")])
    found = read_dataset(folder)
    assert found.privileged is None and found.successes == 4 and len(found.actions) == 27


def copied(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to / "copy"))


def edit_info(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    info = info_of(folder)
    change(info)
    (folder / "meta/info.json").write_text(json.dumps(info))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_rows(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.ParquetFile(path).read().slice(0, 20), path)


def without_column(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["action"]), path)


def not_a_number(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.ParquetFile(path).read()
    actions = table["action"].to_pylist()
    actions[3][2] = float("nan")
    place = table.schema.get_field_index("action")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(actions, table.schema.field(place).type)), path)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no info": (lambda f: (f / "meta/info.json").unlink(), "meta/info.json: not found"),
    "info is no JSON": (lambda f: cut(f / "meta/info.json"), "meta/info.json: .*want the info.json"),
    "no version": (lambda f: edit_info(f, lambda info: info.pop("codebase_version")), "codebase_version: missing"),
    "version": (
        lambda f: edit_info(f, lambda info: info.update(codebase_version="v2.1")),
        "codebase_version: 'v2.1' found, v3.0",
    ),
    "fps": (lambda f: edit_info(f, lambda info: info.update(fps=30)), "fps: 30 found, 5 wanted"),
    "no action": (lambda f: edit_info(f, lambda info: info["features"].pop("action")), "action is missing"),
    "shape": (
        lambda f: edit_info(f, lambda info: info["features"]["action"].update(shape=[6])),
        r"features.action: float32 \[6\] found, float32 \[7\] wanted",
    ),
    "no camera": (lambda f: edit_info(f, lambda info: info["features"].pop(CAMERA)), "no camera found"),
    "other size": (
        lambda f: edit_info(f, lambda info: info["features"][CAMERA].update(shape=[8, 8, 3])),
        "16 x 16 pixels found, 8 x 8",
    ),
    "no data": (lambda f: (f / "data/chunk-000/file-000.parquet").unlink(), "data: no parquet file"),
    "half a data file": (lambda f: cut(f / "data/chunk-000/file-000.parquet"), "no parquet file that can be read"),
    "rows": (without_rows, "20 rows found, 27 wanted"),
    "column": (without_column, "file-000.parquet: column action is missing"),
    "not finite": (not_a_number, r"action: .*nan.* found in row 3, finite"),
    "no tasks": (lambda f: (f / "meta/tasks.parquet").unlink(), "tasks.parquet: not found"),
    "no episodes": (lambda f: (f / "meta/episodes/chunk-000/file-000.parquet").unlink(), "episodes: no parquet file"),
    "no video": (lambda f: (f / f"videos/{CAMERA}/chunk-000/file-000.mp4").unlink(), "file-000.mp4: not found"),
    "half a video": (lambda f: cut(f / f"videos/{CAMERA}/chunk-000/file-000.mp4"), "file-000.mp4: "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dataset_is_told_in_one_line(kind: str, written: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(written["video"], tmp_path)
    damage, message = BROKEN[kind]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        read_dataset(folder)
    assert "\n" not in str(caught.value)


def test_a_run_does_not_begin_with_another_version(written: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(written["png"], tmp_path)
    edit_info(folder, lambda info: info.update(codebase_version="v2.1"))
    with pytest.raises(UserError, match="v2.1"):
        data(tmp_path, lerobot=folder)


def test_odd_pictures_are_for_the_other_two(tmp_path: Path) -> None:
    one = episode(0)
    odd = Demonstration(one.record, one.images[:, :, :15, :15].copy(), one.proprio, one.privileged, one.actions)
    with pytest.raises(UserError, match="15 x 15 pixels found, even numbers wanted"):
        write(tmp_path / "video", "video", [odd])
    np.testing.assert_array_equal(read_dataset(write(tmp_path / "lossless", "lossless", [odd])).images, odd.images)


def test_files_are_cut_between_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genvla.learning.lerobot.layout.FRAMES_PER_FILE", 15)
    folder = write(tmp_path / "cut", "lossless")
    episodes = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["data/file_index"] for row in episodes] == [0, 0, 1, 1]
    assert [row[f"videos/{CAMERA}/from_timestamp"] for row in episodes] == [0.0, 1.2, 0.0, 1.0]
    whole = read_dataset(write(tmp_path / "whole", "lossless", [one for one in EPISODES if one.record.success_once]))
    np.testing.assert_array_equal(read_dataset(folder).images, whole.images)
    assert shard(1000) == {"chunk_index": 1, "file_index": 0}


@pytest.mark.parametrize("images", ["video", "lossless", "png"])
def test_lerobot_reads_it(written: dict[str, Path], images: str) -> None:
    module = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    chunk = [step / FPS for step in range(4)]
    dataset = module.LeRobotDataset("local/test", root=written[images], delta_timestamps={"action": chunk})
    assert len(dataset) == 27 and dataset.num_episodes == 4 and dataset.fps == 5
    assert dataset.meta.stats["action"]["q99"].shape == (7,)
    first = 0
    for one in EPISODES:
        for t in range(len(one.actions)):
            item = dataset[first + t]
            assert item["task"] == one.record.instruction and item["scene_id"] == one.record.scene_id
            assert int(item["seed"]) == one.record.seed
            np.testing.assert_allclose(item["observation.state"], one.proprio[t], rtol=1e-6)
            ahead = np.minimum(np.arange(t, t + 4), len(one.actions) - 1)
            np.testing.assert_allclose(item["action"], one.actions[ahead], rtol=1e-6)
            wanted = one.images[t, 0].transpose(2, 0, 1) / 255
            assert np.abs(item[CAMERA].numpy() - wanted).mean() < (7 / 255 if images == "video" else 1e-6)
        first += len(one.actions)
