"""What trials amount to: the paper's five metrics with intervals, a paired test, and the paper's own numbers beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deploy.trial_log import Plan, Trial, TrialKey
from genvla.evaluation.statistics import Interval, mean_interval, wilson_interval
from genvla.evaluation.tables import number, percent

if TYPE_CHECKING:
    from rich.table import Table

NAMES = {
    "success": "SR, success",
    "partial": "PSR, right object grasped",
    "dynamics_failure": "DFR, dynamics failure",
    "semantic_failure": "SFR, semantic failure",
    "time_to_finish": "TF, time to finish [s]",
}


@dataclass(frozen=True)
class Metrics:
    """Shares of the trials with Wilson's interval at 95 %; time_to_finish is the mean over the successes, with Student's.

    trial_seconds: mean over all trials, failures at the time they took.
    """

    trials: int
    success: Interval
    partial: Interval
    dynamics_failure: Interval
    semantic_failure: Interval
    time_to_finish: Interval
    trial_seconds: Interval

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> Metrics:
        made = list(trials)
        n = len(made)
        return cls(
            trials=n,
            success=wilson_interval(sum(trial.success for trial in made), n),
            partial=wilson_interval(sum(trial.partial for trial in made), n),
            dynamics_failure=wilson_interval(sum(trial.dynamics_failure for trial in made), n),
            semantic_failure=wilson_interval(sum(trial.semantic_failure for trial in made), n),
            time_to_finish=mean_interval([trial.time_to_finish_s for trial in made if trial.time_to_finish_s is not None]),
            trial_seconds=mean_interval([trial.seconds for trial in made]),
        )

    def cells(self) -> list[str]:
        """One text for each of NAMES."""
        return [
            number(value) if name == "time_to_finish" else percent(value) for name in NAMES for value in [getattr(self, name)]
        ]


@dataclass(frozen=True)
class Paired:
    """Two policies on the same layouts: how often both, one, the other or neither succeeded; exact McNemar test.

    p_value: of the hypothesis that either is as likely to succeed where the other fails (Q. McNemar, Psychometrika 12, 1947; the
    binomial test of the discordant pairs, two-sided). difference: of the success rates on the pairs, second less first.
    """

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float

    @property
    def pairs(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        return (self.only_second - self.only_first) / self.pairs if self.pairs else float("nan")

    @classmethod
    def of(cls, counted: Mapping[TrialKey, Trial], first: str, second: str) -> Paired:
        from scipy.stats import binomtest

        counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
        for key, trial in counted.items():
            if key.policy == first and (other := counted.get(TrialKey(key.scene, key.layout, second))) is not None:
                counts[trial.success, other.success] += 1
        discordant = counts[True, False] + counts[False, True]
        p_value = float(binomtest(counts[True, False], discordant).pvalue) if discordant else 1.0
        return cls(first, second, counts[True, True], counts[True, False], counts[False, True], counts[False, False], p_value)

    def line(self) -> str:
        return (
            f"{self.second} against {self.first} on {self.pairs} layouts: {100 * self.difference:+.1f} points; "
            f"only {self.second} succeeded on {self.only_second}, only {self.first} on {self.only_first}; "
            f"exact McNemar p = {self.p_value:.2g}"
        )


PAPER_TRIALS = 120
PAPER = {
    "paper, pretrained": ((26, 54, 80, 22), 11.5),
    "paper, RL": ((90, 106, 22, 8), 10.2),
}
"""Successes, partial successes, dynamics and semantic failures of 120 trials each, and mean time to finish [s]: arXiv 2603.18532,
real WidowX 250S, 12 scenes. The paper gives percentages; these counts are the only ones that round to them."""


def paper_cells(name: str) -> list[str]:
    """The paper's column in the order of NAMES; the intervals are ours, from its counts."""
    counts, seconds = PAPER[name]
    return [*(percent(wilson_interval(count, PAPER_TRIALS)) for count in counts), f"{seconds:.1f}"]


@dataclass(frozen=True)
class TrialReport:
    """The numbers of a plan's trials so far."""

    plan: Plan
    counted: Mapping[TrialKey, Trial]
    attempts: int

    def of_policy(self, policy: str, scene: str | None = None) -> Metrics:
        """Of one policy, in all scenes or one."""
        return Metrics.of(t for key, t in self.counted.items() if key.policy == policy and scene in (None, key.scene))

    @property
    def pairs(self) -> list[Paired]:
        """Each later policy of the plan against the first."""
        first, *others = self.plan.policies
        return [Paired.of(self.counted, first, other) for other in others]

    @property
    def caption(self) -> str:
        planned = len(self.plan.order)
        extra = self.attempts - len(self.counted)
        return f"{len(self.counted)} of {planned} trials" + (f", {extra} more void or redone" if extra else "")

    def table(self) -> Table:
        """For the terminal: a row for each metric, a column for each policy and for the paper's two."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(title=self.caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name, cells in self._columns().items():
            table.add_column(name, justify="left" if name == "metric" else "right")
            assert len(cells) == len(NAMES)
        for row in zip(*self._columns().values(), strict=True):
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The same table as a page, with the paired tests and one row for each scene."""
        columns = self._columns()
        rows = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *zip(*columns.values(), strict=True)]
        lines = [f"### {self.caption}", "", *(_row(row) for row in rows), ""]
        lines += [*(pair.line() + "." for pair in self.pairs), ""] if self.pairs else []
        names = [f"{policy}: {short}" for policy in self.plan.policies for short in ("SR", "PSR", "TF [s]")]
        lines += [_row(["scene", "instruction", *names]), _row(["---", "---", *["---:"] * len(names)])]
        instructions = {key.scene: trial.instruction for key, trial in self.counted.items()}
        for scene in self.plan.scenes:
            cells = []
            for policy in self.plan.policies:
                metrics = self.of_policy(policy, scene)
                cells += [percent(metrics.success), percent(metrics.partial), number(metrics.time_to_finish)]
            lines.append(_row([scene, instructions.get(scene, ""), *cells]))
        notes = (
            "Brackets: 95 % Wilson intervals over trials. TF: mean over the successes, ± 95 % Student interval. A failed trial "
            "may count as dynamics failure, as semantic failure, or as both. The paper's columns are of its real robot and its "
            "own scenes (arXiv 2603.18532); its intervals follow from its counts."
        )
        return "\n".join([*lines, "", notes, ""])

    def data(self) -> dict[str, Any]:
        """Everything as plain values, for a JSON file."""
        return {
            "plan": asdict(self.plan),
            "counted": len(self.counted),
            "planned": len(self.plan.order),
            "attempts": self.attempts,
            "policies": {policy: asdict(self.of_policy(policy)) for policy in self.plan.policies},
            "paired": [{**asdict(pair), "difference": pair.difference} for pair in self.pairs],
            "per_scene": {s: {p: asdict(self.of_policy(p, s)) for p in self.plan.policies} for s in self.plan.scenes},
            "paper": {name: {"trials": PAPER_TRIALS, "counts": c, "time_to_finish_s": t} for name, (c, t) in PAPER.items()},
        }

    def _columns(self) -> dict[str, list[str]]:
        columns = {"metric": list(NAMES.values())}
        columns |= {policy: self.of_policy(policy).cells() for policy in self.plan.policies}
        return columns | {name: paper_cells(name) for name in PAPER}


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
