"""The task's rule: the target touches the destination, and neither the table nor the robot (arXiv 2603.18532)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import sapien

CONTACT_FORCE = 0.01
"""Newtons above which two bodies touch: below it lies what the solver leaves between bodies that are merely near."""


@dataclass(frozen=True)
class Touches:
    """Whom the target touches."""

    robot: bool
    table: bool
    destination: bool

    @property
    def success(self) -> bool:
        return self.destination and not self.table and not self.robot


def target_touches(contacts: Iterable[sapien.physx.PhysxContact], roles: Mapping[int, str], timestep: float) -> Touches:
    """Reads the physics engine's contacts of the last step.

    roles: the entity id (`global_id`) of every body of interest, to "target", "destination", "table" or "robot".
    timestep: seconds per physics step, to turn impulses into forces.
    """
    force = {"robot": 0.0, "table": 0.0, "destination": 0.0}
    for contact in contacts:
        first, second = (roles.get(body.entity.global_id) for body in contact.bodies)
        if first == "target":
            other = second
        elif second == "target":
            other = first
        else:
            continue
        if other in force:
            force[other] += sum(float(np.linalg.norm(point.impulse)) for point in contact.points) / timestep
    return Touches(**{name: value > CONTACT_FORCE for name, value in force.items()})
