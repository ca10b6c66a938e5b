"""Where the part of the encoding that training does not change is kept between its epochs, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from genvla.errors import UserError
from genvla.policy.processor import PolicyInputs


@dataclass(frozen=True)
class FrozenCache:
    """Where the frozen part of an observation's encoding is kept with it.

    where: on the device that trains, in the CPU's memory, or nowhere. gib: the most it may take in an iteration, in 2^30 bytes,
    by one process; where it would take more, nothing is kept and everything is computed anew in each epoch.
    """

    where: Literal["device", "cpu", "off"] = "off"
    gib: float = 8.0

    def __post_init__(self) -> None:
        if not self.gib >= 0:
            raise UserError(f"data.frozen_cache_gib: {self.gib} found, 0 or more wanted")

    def fits(self, nbytes: int) -> bool:
        """Whether there is room for so many bytes."""
        return self.where != "off" and nbytes <= self.gib * 2**30

    def describe(self, nbytes: int, decisions: int) -> str:
        """What becomes of the frozen part, which takes so many bytes per decision, in words."""
        need = f"{nbytes / 2**20:.2f} MiB x {decisions} decisions = {nbytes * decisions / 2**30:.3g} GiB"
        if self.where == "off":
            return f"frozen part of the encoding: {need}, computed anew in each epoch (data.frozen_cache off)"
        if not self.fits(nbytes * decisions):
            return (
                f"frozen part of the encoding: {need}, more than data.frozen_cache_gib {self.gib:g}: computed anew in each epoch"
            )
        place = "the training device" if self.where == "device" else "the CPU"
        return f"frozen part of the encoding: {need}, computed once and kept on {place}"

    def stored(self, inputs: PolicyInputs) -> PolicyInputs:
        """The inputs, with the frozen part where it is to stay."""
        if inputs.frozen is None or self.where == "device":
            return inputs
        return replace(inputs, frozen=inputs.frozen.to("cpu"))
