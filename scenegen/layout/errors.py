"""Why a scene cannot be laid out."""

from __future__ import annotations


class LayoutError(Exception):
    """A scene that cannot be laid out; says why in a few words. `misfit` is the number of the object without which it might be,
    where there is one."""

    def __init__(self, reason: str, misfit: int | None = None) -> None:
        super().__init__(reason)
        self.misfit = misfit
