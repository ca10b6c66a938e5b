"""`scenegen check`, `scenegen replay`: whether scenes hold what they promise."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from scenegen.build import Outcome, SceneSpec, build_scene, write_provenance
from scenegen.checks.run import accepted, check_all, complaints, write_verdicts
from scenegen.commands.build import cores
from scenegen.designer.base import Design
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.errors import UserError
from scenegen.loader import load_scene, load_scene_set
from scenegen.manifest import UNCOUNTED, scene_digest
from scenegen.options import AssetOptions
from scenegen.report.figures import diversity, standing
from scenegen.report.records import read_set
from scenegen.schema import MANIFEST_FILE, PROVENANCE_FILE, Check, Provenance, SceneBundle, Status, Verdict


def check(path: Path, workers: int | None = None, write: bool = False) -> int:
    """Make all checks of a scene or a set anew, and compare the files with the manifest.

    Args:
        path: Folder of a scene or of a set.
        workers: Processes; by default one for each core.
        write: Keep the verdicts in qa.json of each scene that passes.
    """
    console = Console(soft_wrap=True, highlight=False)
    digests: dict[Path, str] = {}
    if (path / MANIFEST_FILE).is_file():
        scenes = load_scene_set(path)
        digests = {scenes.folder / line.path: line.digest for line in scenes.lines}
    folders = list(digests) or [path.absolute()]
    context = multiprocessing.get_context("spawn")
    results = []
    with ProcessPoolExecutor(min(workers or cores(), len(folders)), mp_context=context) as pool:
        found = pool.map(_checked, folders, [write] * len(folders))
        for folder, verdicts in track(zip(folders, found, strict=True), "checking", len(folders), transient=True):
            results.append((folder, verdicts))
    bad = 0
    for folder, verdicts in results:
        reasons = [reason for verdict in verdicts for reason in complaints(verdict)]
        if folder in digests and scene_digest(folder) != digests[folder]:
            reasons.append("files: not those that the manifest was written for")
        bad += bool(reasons)
        for reason in reasons:
            console.print(f"{folder.name}: {reason}")
    console.print(_table([verdict for _, verdicts in results for verdict in verdicts]))
    if digests and not bad:
        console.print(_figures(path, dict(results)))
    console.print(f"{len(results) - bad} of {len(results)} scenes are as they should be")
    return 1 if bad else 0


def _checked(folder: Path, write: bool) -> list[Verdict]:
    try:
        scene = load_scene(folder)
    except UserError as error:
        return [Verdict(check=Check.GEOMETRY, subject="scene", status=Status.ERROR, reasons=[str(error)])]
    verdicts = check_all(scene)
    if write and accepted(verdicts):
        write_verdicts(folder, verdicts)
    return verdicts


def _table(verdicts: list[Verdict]) -> Table:
    table = Table("check", *(status.value for status in Status), box=None)
    for name in Check:
        counts = Counter(verdict.status for verdict in verdicts if verdict.check is name)
        table.add_row(name.value, *(str(counts[status]) for status in Status))
    return table


def _figures(path: Path, verdicts: Mapping[Path, list[Verdict]]) -> str:
    """How the things of a set stand and how many kinds of them there are."""
    record = read_set(path)
    scenes = [replace(scene, verdicts=verdicts[scene.scene.folder]) for scene in record.scenes]
    record = replace(record, scenes=scenes)
    found, stand = diversity(record), standing(record)
    solvable = sum(
        values["goal_share"] > 0
        for scene in scenes
        for values in (verdict.measurements for verdict in scene.verdicts or [])
        if "goal_share" in values
    )
    return (
        f"{found.objects} objects ({found.per_scene:.2f} a scene), {found.unique} of them unlike ({found.distinct} without "
        f"near-duplicates), of {len(found.categories)} categories; {len(found.tables)} kinds of tables, {len(found.rooms)} of "
        f"rooms\nat the start nothing is deeper in another than {stand.penetration_m * 1e3:.2f} mm; "
        f"{stand.objects_at_rest or 0:.1%} of the objects rest through all settle runs; let go over its goal, the target "
        f"stays there in {solvable} of {len(scenes)} scenes"
    )


def replay(scene: Path) -> int:
    """Build a scene once more from what its files say of it, and compare every file.

    Args:
        scene: Folder of a scene.
    """
    loaded = load_scene(scene)
    try:
        provenance = Provenance.model_validate_json((loaded.folder / PROVENANCE_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{loaded.folder / PROVENANCE_FILE}: cannot be read ({error}); wanted a scene that was built") from None
    made = (ProceduralEngine.name, ProceduralEngine.version)
    strange = [entry for entry in loaded.objects if (entry.asset.engine, entry.asset.engine_version) != made]
    if strange:
        found = f"{strange[0].id} made by {strange[0].asset.engine} {strange[0].asset.engine_version}"
        raise UserError(f"{scene}: found {found}; wanted objects of {' '.join(made)}, which can be made again from their seeds")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        outcome = _built_again(loaded.bundle, provenance, folder)
        if not outcome.ok:
            print(f"{loaded.id}: the scene does not pass any more: {outcome.reasons[0]}")
            return 1
        names = {
            path.relative_to(root).as_posix() for root in (folder, loaded.folder) for path in root.rglob("*") if path.is_file()
        }
        changed = [name for name in sorted(names - UNCOUNTED) if not _equal(folder / name, loaded.folder / name)]
    if changed:
        print(f"{loaded.id}: {len(changed)} files differ: {', '.join(changed[:5])}")
        return 1
    print(f"{loaded.id}: identical, {scene_digest(loaded.folder)}")
    return 0


def _built_again(bundle: SceneBundle, provenance: Provenance, folder: Path) -> Outcome:
    options = provenance.options
    least, most = (int(number) for number in options["distractors"].split(".."))
    spec = SceneSpec(
        scene_id=bundle.scene_id,
        task=provenance.task,
        seed=provenance.seed,
        catalog=options["catalog"],
        distractors=(least, most),
        xy_range=float(options["xy_range"]),
        poses=int(options["poses"]),
        designer=provenance.designer,
        engines=options["engines"],
        judge=options["judge"],
    )
    outcome = build_scene(spec, bundle.graph, provenance.attempt, AssetOptions().engine(), folder)
    if outcome.ok:
        design = Design(bundle.graph, provenance.model, tuple(provenance.prompts))
        write_provenance(folder, spec, provenance.attempt, outcome, provenance.failed, design)
    return outcome


def _equal(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()
