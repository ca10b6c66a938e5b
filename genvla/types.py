"""The two types that simulator, demonstrations, policy, server and robot all speak, and what a rollout is made of.

Units and frames, once and for all:

* Poses are of `ee_gripper_link` in the robot's base frame: x forward, y left, z up, metres.
* Rotations are roll, pitch, yaw in radians about the fixed base axes: R = Rz(yaw) Ry(pitch) Rx(roll). In proprioception R
  is taken relative to the top-down gripper, as in the Bridge data: R = R_ee @ D^T with D = [[0,0,1],[0,1,0],[-1,0,0]].
* An action is a change of the *target* pose over one control step (0.2 s) plus a gripper command: p' = p + dp,
  R' = R(droll, dpitch, dyaw) @ R. Gripper: 1 open, 0 closed, threshold 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

CHUNK_SIZE = 4
"""Actions in a chunk; one chunk is one decision of the policy (arXiv 2603.18532)."""

CONTROL_HZ = 5.0
"""Control steps per second, in the simulator and on the robot."""

ACTION_DIM = 7
PROPRIO_DIM = 7

ActionChunk = Float[Tensor, "b c 7"]
"""dx, dy, dz [m], droll, dpitch, dyaw [rad], gripper [1 open .. 0 closed], for each of the c control steps."""

GROUNDING_NAMES = (
    "target_x",
    "target_y",
    "target_z",
    "target_sin_2yaw",
    "target_cos_2yaw",
    "destination_x",
    "destination_y",
    "destination_z",
    "target_u",
    "target_v",
    "destination_u",
    "destination_v",
)
"""The first entries of `Observation.privileged`: what a policy must see. Positions in metres, base frame; the yaw is that of the
target's graspable direction, doubled because a parallel gripper cannot tell it from its opposite; u and v are where the same
points lie in the first camera's picture, from -1 at its left and upper edges to 1 at the others."""

PRIVILEGED_NAMES = (
    *GROUNDING_NAMES,
    "ee_to_target_x",
    "ee_to_target_y",
    "ee_to_target_z",
    "target_to_destination_x",
    "target_to_destination_y",
    "target_to_destination_z",
    "gripper",
    "target_touches_robot",
    "target_touches_table",
    "target_touches_destination",
    "time_left",
)
"""What the simulator knows and the robot does not; for a critic on simulator state and for grounding labels. Touches are 0 or 1,
time_left is the fraction of the episode still to come."""


class TensorFields:
    """Indexing and moving for a dataclass whose fields are batched tensors, lists of one item per sample, other such dataclasses,
    or None."""

    def _map(self, function: Any) -> Self:
        this: Any = self  # a dataclass; of a base class, the type cannot say so
        return replace(this, **{field.name: function(getattr(this, field.name)) for field in fields(this)})

    def __getitem__(self, index: Any) -> Self:
        def pick(value: Any) -> Any:
            if value is None or isinstance(value, Tensor | TensorFields):
                return None if value is None else value[index]
            positions = torch.arange(len(value))[index]
            return [value[int(i)] for i in positions.reshape(-1)]

        return self._map(pick)

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda value: value.to(device) if isinstance(value, Tensor | TensorFields) else value)


@dataclass(frozen=True)
class Observation(TensorFields):
    """What a policy sees before it decides; a batch of b.

    images: RGB, any number n of cameras. image_mask: False for a camera that this sample does not have; None when all are there.
    proprio: x, y, z [m], roll, pitch, yaw [rad] (Bridge frame, see above), gripper opening [0 closed .. 1 open].
    privileged: simulator state in the order of PRIVILEGED_NAMES; None outside the simulator.
    """

    images: UInt8[Tensor, "b n h w 3"]
    instructions: list[str]
    proprio: Float[Tensor, "b 7"]
    image_mask: Bool[Tensor, "b n"] | None = None
    privileged: Float[Tensor, "b p"] | None = None

    def __len__(self) -> int:
        return len(self.instructions)


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode to run: which scene, and the seed of everything random in its reset and its course."""

    scene_id: str
    seed: int


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode. `steps` counts control steps: to the first success, or to the end when there was none."""

    scene_id: str
    seed: int
    success_once: bool
    success_at_end: bool
    grasped_once: bool
    steps: int
    chunks: int
    instruction: str

    @property
    def seconds(self) -> float:
        return self.steps / CONTROL_HZ

    @property
    def spec(self) -> EpisodeSpec:
        return EpisodeSpec(self.scene_id, self.seed)


@dataclass(frozen=True)
class Transition:
    """What one decision led to in each of n environments.

    observation is what the policy sees next: after an episode's end, the first of the next episode. final_observation holds the
    last one of an episode that was truncated (its other rows repeat observation); None when no row was truncated. valid is False
    where a worker died, so that the step says nothing and the episode it belonged to is void. episodes are those that ended here,
    with the environment each ran in.
    """

    observation: Observation
    reward: Float[Tensor, " n"]
    terminated: Bool[Tensor, " n"]
    truncated: Bool[Tensor, " n"]
    valid: Bool[Tensor, " n"]
    final_observation: Observation | None
    episodes: list[tuple[int, EpisodeRecord]]
