"""Runs side by side: groups over seeds, differences on the same episodes, and what may not be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from genvla.errors import UserError
from genvla.evaluation.figures import PHASE_SECONDS, Rows
from genvla.evaluation.results import OF_FORMAT_1, EvaluationResult, Protocol
from genvla.evaluation.sources import Run
from genvla.evaluation.statistics import Interval, gap_interval, mcnemar, mean_interval, paired_interval, wilson_interval

TRAIN, HELDOUT = "train", "heldout"
SCENE_SET = "scene_set_digest"
OF_THE_POLICY = ("checkpoint_digest", "integration_steps")
WITHOUT_EFFECT = ("split", "split_seed", "num_envs", "versions")
"""Fields of a protocol in which compared evaluations may differ: what the policy is, and what episodes do not follow from. The
episodes themselves are compared one by one."""

NOT_SHOWN = (
    *("seed", "run_dir", "resume", "config", "tracking.", "parameters."),
    *("git.", "genvla.version", "kind", "sweep", "cell", "group"),
)
"""Settings and tags, by how they begin, that say nothing about what sets groups apart."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone."""

    name: str
    runs: tuple[Run, ...]

    def success(self, suite: str, *, before: bool = False) -> Interval | None:
        """Success over the suite's episodes: of one run with Wilson's interval, of several the mean of theirs with Student's.

        None where one has no such evaluation.
        """
        results = [(run.before if before else run.after).get(suite) for run in self.runs]
        shares = [result.overall.success_once for result in results if result is not None]
        if len(shares) < len(self.runs):
            return None
        if len(shares) == 1:
            return shares[0]
        mean = mean_interval([share.value for share in shares])
        return replace(mean, low=max(0.0, mean.low), high=min(1.0, mean.high))  # Student's knows nothing of shares

    def gap(self) -> Interval | None:
        """Success on the training scenes less that on held-out ones: of one run with Newcombe's interval, of several the mean of
        theirs with Student's. None where one lacks either."""
        if not all(TRAIN in run.after and HELDOUT in run.after for run in self.runs):
            return None
        gaps = [gap_interval(run.after[TRAIN].overall.success_once, run.after[HELDOUT].overall.success_once) for run in self.runs]
        return gaps[0] if len(gaps) == 1 else mean_interval([gap.value for gap in gaps])

    def seconds(self, suite: str) -> Interval | None:
        """Seconds to success over all the group's successful episodes."""
        results = [run.after[suite] for run in self.runs if suite in run.after]
        times = [record.seconds for result in results for record in result.records if record.success_once]
        return mean_interval(times) if results else None

    def phase_seconds(self) -> dict[str, float]:
        """Seconds of a training iteration by phase, as logged: the median over a run's iterations, the mean over the runs. Empty
        where a run has none, as an evaluation alone."""
        runs = [_phase_seconds(run.rows) for run in self.runs]
        return {phase: fmean(run[phase] for run in runs) for phase in runs[0] if all(phase in run for run in runs)}


@dataclass(frozen=True)
class Difference:
    """Of the success of two evaluations on the same episodes.

    interval: of one pair of runs Tango's, of several the mean of the pairs' differences with Student's over the pairs. won and
    lost count the episodes that only the second or only the first succeeded in; p is that of McNemar's exact test, None for
    several pairs, whose episodes are not independent.
    """

    interval: Interval
    won: int
    lost: int
    pairs: int
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Groups and what sets them apart.

    gains: after training against before, in the same run. differences: of the other groups from the reference, None where the
    scenes are others. Both by suite and group. settings: those that tell the groups apart, by name and group.
    """

    groups: tuple[Group, ...]
    reference: str
    suites: tuple[str, ...]
    gains: dict[str, dict[str, Difference | None]]
    differences: dict[str, dict[str, Difference | None]]
    settings: dict[str, dict[str, str]]
    notes: tuple[str, ...] = ()

    def other_scenes(self, group: Group, suite: str) -> bool:
        """Whether the group met other scenes in a suite than the reference did, so that only their shares stand side by side."""
        return group.name != self.reference and bool(group.success(suite)) and self.differences[suite][group.name] is None

    def baseline(self, suite: str) -> Interval | None:
        """Success before training over all episodes that any run met then, each counted once, with Wilson's interval. None where
        there is none, or where the runs did not start from one policy."""
        runs = [run for group in self.groups for run in group.runs]
        if len({(run.settings.get("checkpoint"), run.settings.get("integration_steps")) for run in runs}) > 1:
            return None
        met = {record.spec: record.success_once for run in runs if suite in run.before for record in run.before[suite].records}
        return wilson_interval(sum(met.values()), len(met)) if met else None

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        groups = {}
        for group in self.groups:
            suites = {}
            for suite in self.suites:
                found = self.differences[suite].get(group.name), self.gains[suite][group.name]
                difference, gain = (None if one is None else asdict(one) for one in found)
                shares = group.success(suite, before=True), group.success(suite), group.seconds(suite)
                before, after, seconds = (None if one is None else asdict(one) for one in shares)
                suites[suite] = {"before": before, "after": after, "gain": gain, "difference": difference, "seconds": seconds}
            gap = group.gap()
            groups[group.name] = {
                "runs": [run.name for run in group.runs],
                "suites": suites,
                "gap": None if gap is None else asdict(gap),
                "iteration_seconds": group.phase_seconds(),
            }
        return {"reference": self.reference, "groups": groups, "settings": self.settings, "notes": list(self.notes)}


def grouped(runs: Sequence[Run], by: Sequence[str] = ()) -> tuple[Group, ...]:
    """Runs grouped by settings or tags; by default by their names without `-seed<number>`. In the order in which they first come.

    Raises:
        UserError: a run has no such setting.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        for name in by:
            if name not in run.settings:
                known = ", ".join(sorted(run.settings)) or "none"
                raise UserError(f"by: {run.name} has no setting or tag {name!r}; it has {known}")
        label = ", ".join(f"{name.rpartition('.')[2]} {run.settings[name]}" for name in by)
        groups.setdefault(label or re.sub(r"-seed\d+(-\d+)?$", "", run.name), []).append(run)
    return tuple(Group(name, tuple(members)) for name, members in groups.items())


def compare(groups: Sequence[Group], reference: str | None = None, *, unpaired: bool = False) -> Comparison:
    """Compares groups suite by suite.

    On the training scenes runs may have trained on different ones; then each stands for itself there.

    Args:
        groups: two or more.
        reference: name of the group that the others are compared with, or how it begins; by default the first.
        unpaired: show suites whose scenes differ side by side, without differences.

    Raises:
        UserError: evaluations of a suite were run by different protocols, on different scene sets or on different scenes, or no
            group or several begin with `reference`.
    """
    chosen = _reference(groups, reference)
    runs = [run for group in groups for run in group.runs]
    suites = tuple(dict.fromkeys(suite for run in runs for suite in run.after))
    for suite in suites:
        having = [run for run in runs if suite in run.after]
        for run in having[1:]:
            same_protocol(suite, having[0].name, having[0].after[suite].protocol, run.name, run.after[suite].protocol)
    others = [group for group in groups if group is not chosen]
    differences = {suite: {other.name: _against(chosen, other, suite, unpaired) for other in others} for suite in suites}
    gains = {suite: {group.name: _gain(group, suite) for group in groups} for suite in suites}
    notes = _notes(groups, differences)
    return Comparison(tuple(groups), chosen.name, suites, gains, differences, differing_settings(groups), tuple(notes))


def same_protocol(suite: str, first: str, one: Protocol, second: str, other: Protocol) -> None:
    """UserError naming the first field in which two evaluations that are to be compared were run differently."""
    found, wanted = _flat(asdict(other)), _flat(asdict(one))
    for name in sorted(wanted.keys() | found.keys()):
        if name.partition(".")[0] in OF_THE_POLICY + WITHOUT_EFFECT or wanted.get(name) == found.get(name):
            continue
        if name == SCENE_SET and any(str(digest).startswith(OF_FORMAT_1) for digest in (wanted[name], found[name])):
            continue
        what = "the scene set" if name == SCENE_SET else name
        raise UserError(
            f"{suite}: {what} is {_short(wanted.get(name))} in {first} and {_short(found.get(name))} in {second}; "
            "want evaluations by the same protocol: run `genvla evaluate` alike on both checkpoints"
        )


def differing_settings(groups: Sequence[Group]) -> dict[str, dict[str, str]]:
    """Settings of which groups have other values, by name and group."""
    names = {name for group in groups for run in group.runs for name in run.settings if not name.startswith(NOT_SHOWN)}
    table = {}
    for name in sorted(names):
        row = {group.name: ", ".join(sorted({run.settings.get(name, "-") for run in group.runs})) for group in groups}
        if len(set(row.values())) > 1:
            table[name] = row
    return table


def difference(pairs: Sequence[tuple[EvaluationResult, EvaluationResult]]) -> Difference:
    """Success of the second of each pair less that of the first, on the episodes that both have run."""
    counts = []
    for first, second in pairs:
        before = {record.spec: record.success_once for record in first.records}
        both = [(before[record.spec], record.success_once) for record in second.records if record.spec in before]
        counts.append((sum(b > a for a, b in both), sum(a > b for a, b in both), len(both)))
    won, lost = sum(count[0] for count in counts), sum(count[1] for count in counts)
    if len(counts) == 1:
        return Difference(paired_interval(*counts[0]), won, lost, 1, mcnemar(won, lost))
    return Difference(mean_interval([(w - x) / n for w, x, n in counts]), won, lost, len(counts), None)


def _reference(groups: Sequence[Group], wanted: str | None) -> Group:
    if len(groups) < 2:
        names = ", ".join(group.name for group in groups)
        raise UserError(f"compare: there is only {names or 'nothing'}, want two groups of runs or more; see --by")
    if wanted is None:
        return groups[0]
    exact = [group for group in groups if group.name == wanted]
    found = exact or [group for group in groups if group.name.startswith(wanted)]
    if len(found) != 1:
        names = ", ".join(group.name for group in groups)
        raise UserError(f"reference: {len(found)} groups begin with {wanted!r}, want one of: {names}")
    return found[0]


def _against(reference: Group, group: Group, suite: str, unpaired: bool) -> Difference | None:
    pairs = []
    for one, other in _matched(reference, group):
        if suite not in one.after or suite not in other.after:
            return None
        first, second = one.after[suite], other.after[suite]
        scenes = [{record.scene_id for record in result.records} for result in (first, second)]
        if scenes[0] != scenes[1]:
            if suite == TRAIN or unpaired:
                return None
            only = sorted(scenes[0] ^ scenes[1])
            raise UserError(
                f"{suite}: {one.name} and {other.name} were evaluated on other scenes ({len(only)} are only in one of the two, "
                f"such as {only[0]}); want the same, or --unpaired true to see them side by side without differences"
            )
        pairs.append((first, second))
    return difference(pairs) if pairs else None


def _matched(reference: Group, group: Group) -> list[tuple[Run, Run]]:
    """Runs of the same seed; a run that is alone in its group is matched with all of the other's."""
    if len(reference.runs) == 1:
        return [(reference.runs[0], run) for run in group.runs]
    if len(group.runs) == 1 and group.runs[0].seed is None:
        return [(run, group.runs[0]) for run in reference.runs]
    by_seed = {run.seed: run for run in reference.runs}
    return [(by_seed[run.seed], run) for run in group.runs if run.seed in by_seed]


def _gain(group: Group, suite: str) -> Difference | None:
    pairs = [(run.before[suite], run.after[suite]) for run in group.runs if suite in run.before and suite in run.after]
    return difference(pairs) if len(pairs) == len(group.runs) else None


def _notes(groups: Sequence[Group], differences: Mapping[str, Mapping[str, Difference | None]]) -> list[str]:
    notes = []
    several = [group.name for group in groups if len(group.runs) > 1]
    if several:
        notes.append("Of several seeds: the mean over the seeds with Student's 95 % interval over them.")
    if len(several) < len(groups):
        notes.append("Of one run: Wilson's 95 % interval over its episodes, and Tango's for differences on the same episodes.")
    if any(entry is None for row in differences.values() for entry in row.values()):
        notes.append("No difference is given where the scenes of the two are others, or one has no such evaluation.")
    sets: dict[str, set[str]] = {}
    versions: dict[str, set[str]] = {}
    for group in groups:
        for run in group.runs:
            for suite, result in run.after.items():
                sets.setdefault(suite, set()).add(result.protocol.scene_set_digest)
                for package, version in result.protocol.versions.items():
                    versions.setdefault(package, set()).add(version)
    unsure = [suite for suite, found in sets.items() if len(found) > 1]
    if unsure:
        notes.append(
            f"Not all runs tell whether their scene set in {', '.join(unsure)} is the same: results of format 1 named a set by a "
            "digest that took in the log of its building."
        )
    for package, found in versions.items():
        if len(found) > 1:
            notes.append(f"Run with different versions of {package}: {', '.join(sorted(found))}.")
    return notes


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    text = str(value) if value != "" else "not known"
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text[:60]


def _phase_seconds(rows: Rows) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if found := PHASE_SECONDS.fullmatch(key):
                times.setdefault(found[1], []).append(value)
    return {phase: median(values) for phase, values in times.items()}
