"""The library: what goes in comes out as if made for its node, whatever happens to the index."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from scenegen.engines.base import EngineError
from scenegen.engines.library import Library, LibraryEngine, content_id
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.engines.writing import files_digest
from scenegen.errors import UserError
from scenegen.schema import AssetRecord, NodeSpec, Role
from tests.scenegen.building import built


def node(node_id: str = "thing", category: str = "mug", role: Role = Role.DISTRACTOR, **fields: object) -> NodeSpec:
    text = f"a {category} of some kind"
    return NodeSpec(id=node_id, name=category, role=role, category=category, description=text, **fields)  # type: ignore[arg-type]


def added(library: Library, folder: Path, seed: int = 0, **fields: object) -> tuple[str, AssetRecord]:
    spec = node(**fields)  # type: ignore[arg-type]
    record = ProceduralEngine().generate(spec, seed, 0, folder / str(seed))
    return library.add(folder / str(seed), record, spec, "MIT"), record


def contents(folder: Path, record: AssetRecord) -> list[bytes]:
    return [(folder / name).read_bytes() for name in record.files.model_dump().values()]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def test_what_comes_out_is_what_the_engine_would_have_named_so(library: Library, tmp_path: Path):
    library_id, record = added(library, tmp_path, color="red")
    spec = node("other_mug", color="red")
    taken = LibraryEngine(library).generate(spec, 7, 0, tmp_path / "scene")
    names = taken.files.model_dump().values()
    assert taken.asset_id == files_digest(dict(zip(names, contents(tmp_path / "scene", taken), strict=True)))
    assert taken.engine == "procedural" and taken.engine_version == f"1+library.{library_id[:16]}"
    assert taken.physics == record.physics and taken.grasp_width_m == record.grasp_width_m
    for old, new in zip(contents(tmp_path / "0", record), contents(tmp_path / "scene", taken), strict=True):
        assert new == old.replace(b"thing", b"other_mug")
    texture = tmp_path / "scene" / taken.files.texture
    assert texture.stat().st_nlink >= 2, "shared with the library"
    assert content_id(contents(tmp_path / "scene", taken)) == library_id


def test_adding_again_under_any_name_changes_nothing(library: Library, tmp_path: Path):
    library_id, record = added(library, tmp_path, color="red")
    spec = node("other_mug", color="red")
    taken = LibraryEngine(library).generate(spec, 7, 0, tmp_path / "scene")
    assert library.add(tmp_path / "scene", taken, spec) == library_id
    assert library.stats()["objects"] == 1
    assert library.get(library_id).license == "MIT" and library.get(library_id).spec.id == "thing"


def test_changed_files_are_not_added(library: Library, tmp_path: Path):
    spec = node()
    record = ProceduralEngine().generate(spec, 0, 0, tmp_path)
    (tmp_path / record.files.texture).write_bytes(b"x")
    with pytest.raises(UserError, match="asset_id: the files have changed"):
        library.add(tmp_path, record, spec)
    (tmp_path / record.files.texture).unlink()
    with pytest.raises(UserError, match="material_0.png: does not exist"):
        library.add(tmp_path, record, spec)
    (tmp_path / record.files.texture).symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="outside the folder"):
        library.add(tmp_path, record, spec)
    assert library.stats()["objects"] == 0


def test_search_by_word_and_field(library: Library, tmp_path: Path):
    for seed, (category, color) in enumerate([("mug", "red"), ("mug", "blue"), ("bowl", "red"), ("carrot", "orange")]):
        added(library, tmp_path, seed, category=category, color=color)

    def categories(*args: str, **fields: object) -> list[tuple[str, str]]:
        return sorted((row.category, row.color) for row in library.search(*args, **fields))  # type: ignore[arg-type]

    assert categories("mugs") == [("mug", "blue"), ("mug", "red")]
    assert categories("red mug") == [("mug", "red")] and categories("carr") == [("carrot", "orange")]
    assert categories(color="red") == [("bowl", "red"), ("mug", "red")]
    assert categories("kind", category="bowl") == [("bowl", "red")] and len(categories("kind", limit=2)) == 2
    assert categories("unicorn") == categories("'\"*") == [] and len(categories('mug" OR "bowl')) == 0
    assert categories(color="red' OR 1=1 --") == []


def test_exact_and_similar(library: Library, tmp_path: Path):
    added(library, tmp_path, 0, category="mug", color="light blue", material="ceramic", graspable=True)
    exact, similar = LibraryEngine(library), LibraryEngine(library, "similar")
    assert exact.supports(node()) == similar.supports(node()) == 1.0
    wanted = node(color="light blue", material="metal")
    assert exact.supports(wanted) == 0.0 and similar.supports(wanted) == 0.8
    assert similar.generate(wanted, 0, 0, tmp_path / "a").color == "light blue"
    assert similar.supports(node(color="red")) == 0.0, "plainly another colour"
    assert similar.supports(node(category="bowl")) == 0.0
    assert exact.supports(node(role=Role.DESTINATION)) == 0.0, "a mug has no goal point"
    assert exact.supports(node(container=True)) == 1.0
    added(library, tmp_path, 1, category="mug", color="light blue", material="metal", size="small")
    assert exact.generate(wanted, 0, 0, tmp_path / "b").material == "metal"
    assert exact.supports(node(size="large")) == 0.0 and exact.supports(node(size="small")) == 1.0
    with pytest.raises(UserError, match="reuse: found 'some'"):
        LibraryEngine(library, "some")  # type: ignore[arg-type]


def test_no_object_is_taken_twice_for_a_scene_and_seeds_decide(library: Library, tmp_path: Path):
    for seed in range(4):
        added(library, tmp_path, seed)
    engine = LibraryEngine(library)

    def scene(name: str, seed: int) -> list[str]:
        records = [engine.generate(node(f"mug_{i}"), seed, 0, tmp_path / name) for i in range(4)]
        return [record.engine_version for record in records]

    first = scene("a", 0)
    assert len(set(first)) == 4 and scene("b", 0) == first
    assert len({tuple(scene(f"c{seed}", seed)) for seed in range(6)}) > 1
    with pytest.raises(EngineError, match="node mug_9: the library holds 4 that fit, 4 of them in this scene"):
        engine.generate(node("mug_9"), 0, 0, tmp_path / "a")
    alone = [engine.generate(node(), 0, attempt, tmp_path / "d").engine_version for attempt in range(4)]
    assert len(set(alone)) == 4, "another attempt gives another object in place of the last"


@pytest.mark.parametrize("harm", ["missing", "garbage", "torn", "other tables"])
def test_the_index_is_made_anew(library: Library, tmp_path: Path, harm: str):
    library_id, _ = added(library, tmp_path)
    index = library.root / "index.sqlite"
    if harm == "missing":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(b"not a database" * 1000)
    elif harm == "torn":
        index.write_bytes(index.read_bytes()[:5000])
    else:
        index.unlink()
        with sqlite3.connect(index) as db:
            db.execute("CREATE TABLE assets (id)")
    assert [row.id for row in library.search("mug")] == [library_id]
    assert library.verify().ok


def test_a_locked_index_does_not_stop_readers(library: Library, tmp_path: Path):
    library_id, _ = added(library, tmp_path)
    library.index.wait_s = 0.05
    with sqlite3.connect(library.root / "index.sqlite") as db:
        db.execute("BEGIN EXCLUSIVE")
        assert [row.id for row in library.search("mug")] == [library_id]
        assert LibraryEngine(library).generate(node(), 0, 0, tmp_path / "scene").category == "mug"


def test_verify_finds_damage_and_dangling_entries(library: Library, tmp_path: Path):
    ids = [added(library, tmp_path, seed)[0] for seed in range(4)]
    assert library.verify().ok and library.verify().objects == 4
    folders = [library.objects / i[:2] / i for i in ids]
    mesh = folders[0] / "mesh/asset.obj"
    mesh.write_bytes(mesh.read_bytes().replace(b"v ", b"v 1", 1))
    (folders[1] / "asset.json").write_text("{")
    shutil.rmtree(folders[2])
    (folders[3].parent / ".x.123.tmp").mkdir()
    report = library.verify()
    assert (
        set(report.damaged) == {ids[0], ids[1]} and report.dangling == [ids[2]] and len(report.leftovers) == 1 and not report.ok
    )
    spec = node()
    for attempt in range(4):
        try:
            record = LibraryEngine(library).generate(spec, 0, attempt, tmp_path / "scene")
            assert record.engine_version.endswith(ids[3][:16])
        except EngineError:
            pass
    library.rebuild()
    assert library.verify().dangling == library.verify().leftovers == []


def test_remove_prune_and_stats(library: Library, tmp_path: Path):
    ids = [added(library, tmp_path, seed, color=color)[0] for seed, color in enumerate(["red", "blue", "green"])]
    LibraryEngine(library).generate(node(color="blue"), 0, 0, tmp_path / "scene")
    stats = library.stats()
    assert stats["objects"] == 3 and stats["times_used"] == 1 and stats["color"] == {"red": 1, "blue": 1, "green": 1}
    library.remove(ids[0])
    assert library.prune() == [ids[2]]
    assert [row.id for row in library.search()] == [ids[1]] and library.verify().ok
    assert (tmp_path / "scene/asset3d/thing/result/mesh/material_0.png").is_file()
    library.rebuild()
    assert library.stats()["times_used"] == 1, "a rebuilt index keeps the counts it can read"


@pytest.mark.parametrize("library_id", ["../../etc", "a" * 63, "A" * 64, "a" * 64 + "/..", ""])
def test_ids_that_are_none_are_refused(library: Library, library_id: str):
    for use in (library.get, library.remove):
        with pytest.raises(UserError, match=re.escape(f"id: found {library_id!r}")):
            use(library_id)


def test_a_scene_s_assets_are_kept(library: Library, tmp_path: Path):
    scene = built(tmp_path / "scene", "put the red block in the blue basket", 0, 0.02, 2, (1, 1))
    ids = library.add_scene(scene)
    assert len(set(ids)) == 3 and library.stats()["objects"] == 3
    assert library.add_scene(scene) == ids and library.stats()["objects"] == 3
    engine = LibraryEngine(library)
    for spec in scene.bundle.graph.objects:
        record = engine.generate(spec, 0, 0, tmp_path / "again")
        assert record.asset_id == next(entry.asset.asset_id for entry in scene.bundle.objects if entry.id == spec.id)


def _add_all(root: Path, folder: Path) -> None:
    library = Library(root)
    for seed in range(6):
        spec = node()
        library.add(folder / str(seed), ProceduralEngine().generate(spec, seed, 0, folder / str(seed)), spec)


def test_many_processes_add_the_same_objects(library: Library, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_all, args=(library.root, tmp_path / f"w{i}")) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert library.stats()["objects"] == 6 and library.verify().ok
