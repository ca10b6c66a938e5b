"""Who says how a trial went: the simulator, which sees every contact, or the operator, who is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sapien

from deploy.scene_twin import SceneTwin
from deploy.trial_log import DYNAMICS_TAGS, SEMANTIC_TAGS
from genvla.sim.success import target_touches

LIFTED = 0.02
"""Metres that an object must rise, touching the robot, to count as grasped."""

PUSHED = 0.05
"""Metres that a target must be moved without being grasped to count as pushed away."""


@dataclass(frozen=True)
class Finding:
    """How a trial went; see `deploy.trial_log.Trial`."""

    success: bool
    partial: bool
    tags: tuple[str, ...] = ()
    void: str = ""
    comment: str = ""

    @property
    def dynamics_failure(self) -> bool:
        """The motion failed: a missed or lost grasp, something pushed or struck."""
        return not self.success and any(tag in DYNAMICS_TAGS for tag in self.tags)

    @property
    def semantic_failure(self) -> bool:
        """The understanding failed: the wrong object, the wrong place, or no resolve until the time was up."""
        return not self.success and any(tag in SEMANTIC_TAGS for tag in self.tags)


@dataclass
class Evidence:
    """What happened to the objects of a scene in a trial.

    touched, grasped, success: whether the robot touched the target, held it off the table, fulfilled the task, at any time. held,
    on_other: in the end, whether it still holds the target, and whether the target lies on something that is not its destination.
    displaced: metres the target was moved before any grasp. wrong_lifted: whether another object was lifted. stopped: whether the
    safety layer ended it.
    """

    touched: bool = False
    grasped: bool = False
    success: bool = False
    held: bool = False
    on_other: bool = False
    displaced: float = 0.0
    wrong_lifted: bool = False
    stopped: bool = False

    def finding(self) -> Finding:
        """The verdict. The paper names its failures without defining them; these are our working definitions."""
        if self.success:
            return Finding(True, True)
        pushed = not self.grasped and self.displaced > PUSHED
        tags = {
            "miss_grasp": self.touched and not self.grasped,
            "push_away": pushed,
            "drop": self.grasped and not self.held and not self.on_other,
            "safety_stop": self.stopped,
            "wrong_object": self.wrong_lifted,
            "wrong_target": self.on_other and not self.held,
            "hesitation": self.held or not (self.touched or pushed or self.wrong_lifted),
        }
        return Finding(False, self.grasped, tuple(tag for tag, seen in tags.items() if seen))


class TwinWitness:
    """Collects the evidence of one episode of the simulated robot; `look` after each control step."""

    def __init__(self, twin: SceneTwin) -> None:
        self._twin = twin
        env = twin.env
        layout = env.layout
        self._target = env.objects[layout.target_index]
        self._others = [
            entity for index, entity in enumerate(env.objects) if index not in (layout.target_index, layout.destination_index)
        ]
        self._robot = {link._objs[0].entity.global_id for link in env.agent.robot.links}
        self._start = self._target.pose.p[:2].copy()
        self._heights = [float(entity.pose.p[2]) for entity in self._others]
        self.evidence = Evidence()

    def look(self) -> None:
        """Takes in what the physics engine says of the last step."""
        evidence, slot = self.evidence, self._twin.slot
        evidence.touched |= slot.touches.robot
        evidence.grasped = slot.grasped
        evidence.success = slot.first_success is not None
        evidence.held = slot.touches.robot and not slot.touches.table
        if not slot.grasped:
            evidence.displaced = max(evidence.displaced, float(np.linalg.norm(self._target.pose.p[:2] - self._start)))
        contacts = self._twin.env.scene.px.get_contacts()
        for entity, height in zip(self._others, self._heights, strict=True):
            if float(entity.pose.p[2]) > height + LIFTED and self._touch(contacts, entity, self._robot):
                evidence.wrong_lifted = True
        others = {entity.global_id for entity in self._others}
        touches = slot.touches
        aloft = not touches.table and not touches.destination and not touches.robot
        evidence.on_other = aloft and self._touch(contacts, self._target, others)

    def _touch(self, contacts: list[sapien.physx.PhysxContact], one: sapien.Entity, others: set[int]) -> bool:
        roles = {**dict.fromkeys(others, "robot"), one.global_id: "target"}
        return target_touches(contacts, roles, 1.0 / self._twin.sim.sim_hz).robot


LETTERS = {
    "m": "miss_grasp",
    "d": "drop",
    "p": "push_away",
    "c": "collision",
    "o": "wrong_object",
    "t": "wrong_target",
    "h": "hesitation",
}
"""What an operator types for each cause of a failure."""


class SessionOver(Exception):
    """The operator wants to stop for today."""


class OperatorJudge:
    """Asks whoever stands beside the robot.

    Args:
        ask: puts a question and returns the answer.
    """

    def __init__(self, ask: Callable[[str], str] = input) -> None:
        self._ask = ask

    def finding(self, stopped: bool) -> Finding:
        """How the trial went.

        Args:
            stopped: whether the safety layer ended it.

        Raises:
            SessionOver: the operator quits; the trial is not counted.
        """
        question = "result: s success, g right object grasped, f failed, v void, q quit > "
        answer = self._choice(question, "sgfvq")
        if answer == "q":
            raise SessionOver
        if answer == "v":
            return Finding(False, False, void=self._ask("why void > ").strip() or "void")
        if answer == "s":
            return Finding(True, True, comment=self._ask("comment > ").strip())
        tags = self._tags(stopped)
        return Finding(False, answer == "g", tags, comment=self._ask("comment > ").strip())

    def _tags(self, stopped: bool) -> tuple[str, ...]:
        """At least one cause: a failure without one would count in neither rate."""
        shown = ", ".join(f"{letter} {tag}" for letter, tag in LETTERS.items())
        already = ("safety_stop",) if stopped else ()
        while True:
            letters = self._ask(f"causes, one letter each: {shown} > ").replace(" ", "").replace(",", "")
            if set(letters) <= set(LETTERS) and (letters or already):
                return already + tuple(LETTERS[letter] for letter in dict.fromkeys(letters))

    def _choice(self, question: str, letters: str) -> str:
        while True:
            answer = self._ask(question).strip().lower()
            if len(answer) == 1 and answer in letters:
                return answer
