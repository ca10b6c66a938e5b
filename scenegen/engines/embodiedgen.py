"""Objects that EmbodiedGen makes, in its own environment: a process is given a batch of descriptions, what it writes is read. And
objects that it made before."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from scenegen.embodiedgen.asset_urdf import find_urdf, read_urdf
from scenegen.embodiedgen.assets import import_asset, named_color
from scenegen.engines.base import EngineError
from scenegen.engines.procedural.catalog import FULL
from scenegen.engines.sizes import size_prior
from scenegen.errors import UserError
from scenegen.files import locked
from scenegen.schema import OBJECT_ROLES, AssetRecord, NodeSpec
from scenegen.seeds import derive_seed, generator

COMMAND = "text3d-cli"
ASSETS = "asset3d"
LOGS = "logs"
_MOST_SEED = 2**31


class EmbodiedGenEngine:
    """Runs `command` (a list, or a string as a shell would split it; the program and arguments before ours, such as `conda run
    -n embodiedgen text3d-cli`) in `workdir` with `environment` added to this one's, for at most `timeout` seconds a batch.
    Everything it makes stays below `output_root`, and what is there is not made again.

    A process loads its models first, which takes longer than an object: `prepare` a batch, then `generate` each. The seed of a
    batch decides its objects, so objects to be prepared together need the same seed.
    """

    name = "embodiedgen"
    version = "1"

    def __init__(
        self,
        output_root: Path,
        command: str | Sequence[str] = COMMAND,
        timeout: float = 3600.0,
        workdir: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.output_root = output_root.absolute()
        self.command = shlex.split(command) if isinstance(command, str) else list(command)
        self.timeout, self.workdir, self.environment = timeout, workdir, dict(environment or {})
        if not self.command or not timeout > 0:
            raise UserError("embodiedgen_command, timeout: wanted a program, and more than 0 seconds")

    def supports(self, spec: NodeSpec) -> float:
        return 1.0 if spec.role in OBJECT_ROLES else 0.0

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord:
        """See `AssetEngine`. `feedback` does not reach the generator: its prompt says what to make, and another attempt has other
        seeds."""
        self.prepare([spec], seed, attempt)
        place = self.output_root / ASSETS / self.asset_name(spec, seed, attempt)
        return _imported(place, spec, folder, seed, attempt)

    def prepare(self, nodes: Sequence[NodeSpec], seed: int, attempt: int = 0) -> None:
        """Make what is not there yet of the nodes' objects, all in one process. Raises EngineError with the last line that it
        wrote when it fails, takes too long or leaves objects out; what it finished before is kept."""
        prompts = {self.asset_name(node, seed, attempt): node.description.lstrip("- ") for node in nodes}
        self.output_root.mkdir(parents=True, exist_ok=True)
        with locked(self.output_root / ".lock"):  # there is one graphics card
            wanted = {name: prompt for name, prompt in prompts.items() if self._fault(name)}
            if not wanted:
                return
            for name in wanted:
                shutil.rmtree(self.output_root / ASSETS / name, ignore_errors=True)
            log = self._run(wanted, seed, attempt)
            faults = {name: fault for name in wanted if (fault := self._fault(name))}
            if faults:
                name, fault = next(iter(faults.items()))
                raise EngineError(
                    f"{self.command[0]}: left out {len(faults)} of {len(wanted)}: {name}: {fault}; {_last_line(log)}"
                )

    def asset_name(self, spec: NodeSpec, seed: int, attempt: int) -> str:
        """The name that the generator is given: fit for a file, another for every description, seed and attempt."""
        digest = sha256(f"{self.version}\x1f{spec.description}\x1f{seed}\x1f{attempt}".encode()).hexdigest()
        kind = re.sub(r"[^a-z0-9]+", "_", spec.category.lower()).strip("_")[:40] or "object"
        return f"{kind}_{digest[:12]}"

    def _fault(self, name: str) -> str:
        """What keeps an object from being read; nothing when it is whole."""
        place = self.output_root / ASSETS / name
        try:
            asset = read_urdf(find_urdf(place))
        except UserError as error:
            return str(error).removeprefix(f"{place}: ")
        return "" if (asset.path.parent / asset.visual.file).is_file() else f"{asset.visual.file} is missing"

    def _run(self, wanted: Mapping[str, str], seed: int, attempt: int) -> Path:
        """Run the process for these objects; its log. Raises EngineError."""
        seeds = [str(derive_seed(seed, "embodiedgen", what, attempt) % _MOST_SEED) for what in ("image", "3d")]
        arguments = ["--prompts", *wanted.values(), "--asset_names", *wanted, "--output_root", str(self.output_root)]
        arguments += ["--seed_img", seeds[0], "--seed_3d", seeds[1]]
        log = self.output_root / LOGS / f"{next(iter(wanted))}_{len(wanted)}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as stream:
            try:
                process = subprocess.Popen(
                    [*self.command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    cwd=self.workdir,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(f"embodiedgen_command: {self.command[0]!r} does not start: {error.strerror}") from None
            try:
                code = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise EngineError(f"{self.command[0]}: not done after {self.timeout:g} s; {_last_line(log)}") from None
            finally:
                _end_group(process)
        if code != 0:
            raise EngineError(f"{self.command[0]}: ended with {code}; {_last_line(log)}")
        return log


@dataclass(frozen=True)
class _Found:
    folder: Path
    kind: str
    words: frozenset[str]
    color: str | None


class EmbodiedGenFiles:
    """Objects that EmbodiedGen made before, anywhere below `root`, picked by their category and description. `unreadable` says in
    lines which were left out and why."""

    name = "embodiedgen-files"
    version = "1"

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"embodiedgen_files: {root} not found; wanted a folder with assets of EmbodiedGen")
        self.found: list[_Found] = []
        self.unreadable: list[str] = []
        for path in sorted(root.rglob("*.urdf")):
            try:
                asset = read_urdf(path)
            except UserError as error:
                self.unreadable.append(str(error))
                continue
            kind = asset.info.get("category") or asset.name.replace("_", " ")
            text = f"{asset.name.replace('_', ' ')} {kind} {asset.info.get('description', '')}".lower()
            words = frozenset(re.findall(r"[a-z0-9']+", text))
            self.found.append(_Found(path.parent, _family(kind), words, named_color(text)))

    def supports(self, spec: NodeSpec) -> float:
        return max((_likeness(asset, spec) for asset in self.found), default=0.0)

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord:
        """See `AssetEngine`. Of the objects that fit best one after another, in an order that the seed decides."""
        best = self.supports(spec)
        if best <= 0:
            raise EngineError(f"{spec.id}: none of {len(self.found)} assets is a {spec.category}")
        fitting = [asset for asset in self.found if _likeness(asset, spec) == best]
        order = generator(seed, self.name, spec.id).permutation(len(fitting))
        return _imported(fitting[int(order[attempt % len(order)])].folder, spec, folder, seed, attempt)


def _likeness(asset: _Found, spec: NodeSpec) -> float:
    """1 for the kind and colour asked for, 0 for another kind; the kind named in the description alone counts for less."""
    if asset.kind != _family(spec.category):
        if not {*re.findall(r"[a-z0-9']+", spec.category.lower())} <= asset.words:
            return 0.0
        kind = 0.7
    else:
        kind = 1.0
    if spec.color is None or asset.color == spec.color:
        return kind
    return kind * (0.9 if asset.color is None else 0.3)


def _family(noun: str) -> str:
    noun = noun.lower().strip()
    return FULL.nouns[noun].category if noun in FULL.nouns else noun


def _imported(place: Path, spec: NodeSpec, folder: Path, seed: int, attempt: int) -> AssetRecord:
    try:
        return import_asset(place, spec, folder, seed=seed, attempt=attempt, prior=size_prior(spec.category))
    except UserError as error:
        raise EngineError(str(error)) from None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"last line: {last[:200]!r} ({log.name})" if last else f"it wrote nothing ({log.name})"
