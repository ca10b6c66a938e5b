"""What a check writes down while it looks, and the verdict that this becomes."""

from __future__ import annotations

from dataclasses import dataclass, field

from scenegen.schema import Check, Status, Verdict


class FileFault(Exception):
    """A file of an asset that is missing, malformed or empty: the asset is wrong. Says in one line which file and what."""


@dataclass
class Findings:
    """Reasons to turn something down, in the order in which they were found, and what was measured."""

    reasons: list[str] = field(default_factory=list)
    measurements: dict[str, float] = field(default_factory=dict)

    def need(self, condition: bool, reason: str) -> None:
        if not condition:
            self.reasons.append(reason)

    def measure(self, **values: float) -> None:
        """Kept to 6 decimals, so that verdicts of equal things are equal bytes."""
        self.measurements |= {name: round(float(value), 6) + 0.0 for name, value in values.items()}

    def verdict(self, check: Check, subject: str) -> Verdict:
        status = Status.FAIL if self.reasons else Status.PASS
        return Verdict(check=check, subject=subject, status=status, reasons=self.reasons, measurements=self.measurements)
