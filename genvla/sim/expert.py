"""A scripted pick-and-place expert that knows true poses, and the demonstrations it gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genvla.types import EpisodeRecord

MAX_TRANSLATION = 0.05
"""Metres per control step: the Bridge controller's limit."""
MAX_ROTATION = 0.35
"""Radians per control step."""
HOVER = 0.05
"""Metres above the grasp, and above the place to let go, where the hand lines up before it goes down."""
CLEARANCE = 0.012
"""Metres between the carried object's underside and the surface when it is let go."""
GRASP_STEPS = 1
RELEASE_STEPS = 1


Moment = tuple[np.ndarray, np.ndarray, np.ndarray]
"""What is observed at one time: images uint8 [n, h, w, 3], proprio [7], privileged [p]."""


@dataclass(frozen=True)
class Demonstration:
    """One episode, at every control step t: what was seen before the step, and the action that the expert, or a policy, meant to
    take.

    images: uint8 [t, n, h, w, 3]; proprio: [t, 7]; privileged: [t, p]; actions: [t, 7] in the units of types.ActionChunk.
    """

    record: EpisodeRecord
    images: np.ndarray
    proprio: np.ndarray
    privileged: np.ndarray
    actions: np.ndarray


class ScriptedExpert:
    """Reach over the target, go down, grasp, carry over the destination, lower, let go, retreat. One object per episode."""

    def __init__(self, grasp_height: float) -> None:
        """grasp_height: of the grasp point over the target's underside, metres."""
        self._grasp_height = grasp_height
        self._phase = "reach"
        self._waited = 0

    def action(
        self,
        commanded: np.ndarray,
        commanded_yaw: float,
        reached: np.ndarray,
        reached_yaw: float,
        grasp: np.ndarray,
        grasp_yaw: float,
        goal: np.ndarray,
    ) -> np.ndarray:
        """The next action [7].

        commanded, commanded_yaw: the controller's target pose, which the action moves. reached, reached_yaw: where the hand is.
        grasp, grasp_yaw, goal: as SceneEnv.target_state gives them. Positions [3] in metres in the base frame.
        """
        yaw = reached_yaw if np.isnan(grasp_yaw) else grasp_yaw
        yaw = reached_yaw + _wrap(yaw - reached_yaw, np.pi)  # a parallel gripper fits both ways round: take the nearer
        over = goal + [0.0, 0.0, self._grasp_height + HOVER + CLEARANCE]
        on = goal + [0.0, 0.0, self._grasp_height + CLEARANCE]
        self._advance(reached, reached_yaw, grasp, yaw, over, on)
        if self._phase in ("carry", "lower", "release", "retreat"):
            yaw = commanded_yaw
        point = {
            "reach": grasp + [0.0, 0.0, HOVER],
            "descend": grasp,
            "grasp": commanded,
            "lift": commanded + [0.0, 0.0, MAX_TRANSLATION],
            "carry": over,
            "lower": on,
            "release": commanded,
            "retreat": over + [0.0, 0.0, 0.03],
        }[self._phase]
        step = point - commanded
        step *= min(1.0, MAX_TRANSLATION / np.maximum(np.linalg.norm(step), 1e-9))
        turn = np.clip(_wrap(yaw - commanded_yaw, 2 * np.pi), -MAX_ROTATION, MAX_ROTATION)
        opened = self._phase in ("reach", "descend", "release", "retreat")
        return np.array([*step, 0.0, 0.0, turn, float(opened)], dtype=np.float32)

    def _advance(
        self, hand: np.ndarray, hand_yaw: float, grasp: np.ndarray, yaw: float, over: np.ndarray, on: np.ndarray
    ) -> None:
        """Goes on to the next phase when this one has reached its aim."""
        flat = np.linalg.norm(hand[:2] - grasp[:2])
        aligned = abs(_wrap(yaw - hand_yaw, np.pi)) < 0.12
        done = {
            "reach": flat < 0.015 and aligned,
            "descend": flat < 0.015 and hand[2] - grasp[2] < 0.008,
            "grasp": self._waited >= GRASP_STEPS,
            "lift": self._waited >= 1,
            "carry": np.linalg.norm(hand[:2] - over[:2]) < 0.02 and hand[2] - over[2] < 0.02,
            "lower": hand[2] - on[2] < 0.008,
            "release": self._waited >= RELEASE_STEPS,
            "retreat": False,
        }
        order = list(done)
        self._waited += 1
        if done[self._phase]:
            self._phase = order[order.index(self._phase) + 1]
            self._waited = 0
        elif (self._phase == "descend" and flat > 0.03) or (
            self._phase in ("lift", "carry", "lower") and np.linalg.norm(hand - grasp) > 0.06
        ):
            self._phase = "reach"  # noise or a push moved the hand or the object, or it slipped out: line up again


def _wrap(angle: float, period: float) -> float:
    """The angle brought into [-period / 2, period / 2)."""
    return (angle + period / 2) % period - period / 2
