"""Forward kinematics, Jacobian and inverse kinematics of the WidowX 250S, batched and made of few operations.

The waist turns about the base's z axis and the last joint about the hand's x axis, so the pose of EE_LINK in the base frame is

    T(q) = Rz(q1) N(q2, q3, q4, q5) Rx(q6).

N is linear in each of (1, cos qi, sin qi), hence one constant matrix times their 81 products. The derivatives of T with respect
to all six joints, seen in the frames on either side of N, are constant matrices times the same products. One matrix product
therefore yields the pose and its Jacobian; a step of the inverse kinematics is about twenty tensor operations whatever the batch.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.robots.rotations import matrix_to_euler
from genvla.robots.wx250s import EE_OFFSET, FINGER_CLOSED, FINGER_OPEN, JOINT_LOWER, JOINT_UPPER

JOINT_AXES = ("z", "y", "y", "x", "y", "x")
JOINT_OFFSETS = (
    (0.0, 0.0, 0.072),
    (0.0, 0.0, 0.03865),
    (0.04975, 0.0, 0.25),
    (0.175, 0.0, 0.0),
    (0.075, 0.0, 0.0),
    (0.065, 0.0, 0.0),
)
"""Axis of each arm joint, and its origin in the frame of the joint before, metres; all frames are parallel at q = 0."""

ROTATION_LENGTH = 0.15
"""Metres at which one radian of rotation error weighs as much as a metre in the least squares; about the hand's length."""

TOP_DOWN = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
"""The hand pointing straight down: proprioception's rotation is R @ TOP_DOWN^T (Bridge convention)."""


class _Constants(NamedTuple):
    phase: Float[Tensor, " 3"]
    slope: Float[Tensor, " 3"]
    pose: Float[Tensor, "81 12"]
    chain: Float[Tensor, "81 84"]
    waist: Float[Tensor, "3 9"]
    roll: Float[Tensor, "3 16"]
    metric: Float[Tensor, " 4"]
    identity: Float[Tensor, "6 6"]
    floor: Float[Tensor, "6 6"]
    lower: Float[Tensor, " 6"]
    upper: Float[Tensor, " 6"]
    top_down: Float[Tensor, "3 3"]


def _generator(axis: str) -> Float[Tensor, "4 4"]:
    """The derivative, at angle 0, of the rotation about an axis, as a 4x4 transform."""
    x, y, z = (float(axis == name) for name in "xyz")
    return torch.tensor([[0, -z, y, 0], [z, 0, -x, 0], [-y, x, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)


def _translation(offset: tuple[float, float, float]) -> Float[Tensor, "4 4"]:
    transform = torch.eye(4, dtype=torch.float64)
    transform[:3, 3] = torch.tensor(offset, dtype=torch.float64)
    return transform


def _rotation_terms(axis: str) -> Float[Tensor, "3 4 4"]:
    """Coefficients of 1, cos, sin in the rotation about an axis (Rodrigues)."""
    k = _generator(axis)
    return torch.stack((torch.eye(4, dtype=torch.float64) + k @ k, -k @ k, k))


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # whoever asks first, the answer is kept for all
def _constants(dtype: torch.dtype, device: torch.device) -> _Constants:
    joints = [_translation(offset) @ _rotation_terms(axis) for axis, offset in zip(JOINT_AXES, JOINT_OFFSETS, strict=True)]
    first = _translation(JOINT_OFFSETS[0]) @ joints[1]
    last = joints[4] @ _translation(JOINT_OFFSETS[5]) @ _translation((EE_OFFSET, 0.0, 0.0))
    pose = torch.einsum("aij,bjk,ckl,dlm->abcdim", first, joints[2], joints[3], last)
    # d/dq of (1, cos, sin) is (0, -sin, cos): differentiating moves coefficients between the products.
    differentiate = torch.tensor([[0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
    middle = [torch.tensordot(differentiate, pose, dims=([1], [slot])).movedim(0, slot) for slot in range(4)]
    derivatives = [_generator(JOINT_AXES[0]) @ pose, *middle, pose @ _generator(JOINT_AXES[5])]
    # The Frobenius norm of a small rotation by t is sqrt(2) t.
    metric = torch.tensor([ROTATION_LENGTH / math.sqrt(2)] * 3 + [1.0], dtype=torch.float64)
    chain = torch.stack((pose, *derivatives), 4)[..., :3, :] * metric
    constants = _Constants(
        phase=torch.tensor([math.pi / 2, math.pi / 2, 0.0], dtype=torch.float64),
        slope=torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64),
        pose=pose[..., :3, :].reshape(81, 12),
        chain=chain.reshape(81, 84),
        waist=_rotation_terms(JOINT_AXES[0])[:, :3, :3].reshape(3, 9),
        roll=_rotation_terms(JOINT_AXES[5]).reshape(3, 16),
        metric=metric,
        identity=torch.eye(6, dtype=torch.float64),
        floor=torch.eye(6, dtype=torch.float64) * 1e-6,
        lower=JOINT_LOWER[:6],
        upper=JOINT_UPPER[:6],
        top_down=torch.tensor(TOP_DOWN, dtype=torch.float64),
    )
    return _Constants(*(value.to(device=device, dtype=dtype) for value in constants))


class _Trigonometry(NamedTuple):
    """What depends on the joint angles and everything else is linear in: Rz(q1), Rx(q6) as a 4x4 transform, the 81 products."""

    waist: Float[Tensor, "b 3 3"]
    roll: Float[Tensor, "b 4 4"]
    products: Float[Tensor, "b 81"]


def _trigonometry(q: Float[Tensor, "b 6"], constants: _Constants) -> _Trigonometry:
    # (1, cos q, sin q), all three as sines of q shifted: one operation instead of five.
    terms = torch.addcmul(constants.phase, q.unsqueeze(-1), constants.slope).sin_()
    q1, q2, q3, q4, q5, q6 = terms.unbind(1)
    upper = torch.bmm(q2.unsqueeze(2), q3.unsqueeze(1)).view(-1, 9, 1)
    lower = torch.bmm(q4.unsqueeze(2), q5.unsqueeze(1)).view(-1, 1, 9)
    return _Trigonometry(
        waist=torch.mm(q1, constants.waist).view(-1, 3, 3),
        roll=torch.mm(q6, constants.roll).view(-1, 4, 4),
        products=torch.bmm(upper, lower).view(-1, 81),
    )


def forward(q: Float[Tensor, "b 6"]) -> tuple[Float[Tensor, "b 3"], Float[Tensor, "b 3 3"]]:
    """Position [m] and rotation of EE_LINK in the base frame."""
    constants = _constants(q.dtype, q.device)
    waist, roll, products = _trigonometry(q, constants)
    middle = torch.mm(products, constants.pose).view(-1, 3, 4)
    pose = torch.bmm(torch.bmm(waist, middle), roll)
    return pose[:, :, 3], pose[:, :, :3]


def jacobian(q: Float[Tensor, "b 6"]) -> Float[Tensor, "b 6 6"]:
    """Velocity of EE_LINK per joint velocity: rows are vx, vy, vz, wx, wy, wz in base axes, columns the arm joints."""
    constants = _constants(q.dtype, q.device)
    waist, roll, products = _trigonometry(q, constants)
    chain = (products @ constants.chain).view(-1, 7, 3, 4) / constants.metric
    pose = waist[:, None] @ chain @ roll[:, None]
    spin = pose[:, 1:, :, :3] @ pose[:, :1, :, :3].mT
    angular = torch.stack((spin[..., 2, 1], spin[..., 0, 2], spin[..., 1, 0]), -1)
    return torch.cat((pose[:, 1:, :, 3], angular), -1).mT


def inverse(
    q_start: Float[Tensor, "b 6"],
    position: Float[Tensor, "b 3"],
    rotation: Float[Tensor, "b 3 3"],
    iterations: int = 3,
    damping: float = 0.05,
) -> Float[Tensor, "b 6"]:
    """Joint angles within the limits that bring EE_LINK near a pose: damped Gauss-Newton steps from q_start.

    The error is `pose_error`. The steps are damped by `damping` times its square (Levenberg-Marquardt after Sugihara 2011), so
    that they stay short near singular postures yet converge quadratically. Three of them close a gap of 5 cm and 0.3 rad to below
    a millimetre, away from those postures. Whether a pose was reached is for the caller to see, with `forward`. One batch has
    one floating type, which the answer has too.
    """
    constants = _constants(q_start.dtype, q_start.device)
    target = torch.cat((rotation, position.unsqueeze(-1)), -1) * constants.metric
    q = q_start
    for _ in range(iterations):
        waist, roll, products = _trigonometry(q, constants)
        pose, derivative = torch.mm(products, constants.chain).view(-1, 7, 12).split((1, 6), 1)
        error = torch.bmm(torch.bmm(waist.mT, target), roll.mT).view(-1, 1, 12) - pose
        squared = torch.bmm(error, error.mT)
        damped = torch.addcmul(constants.floor, squared, constants.identity, value=damping)
        step, _ = torch.linalg.solve_ex(torch.baddbmm(damped, derivative, derivative.mT), torch.bmm(derivative, error.mT))
        q = (q + step.squeeze(-1)).clamp(constants.lower, constants.upper)
    return q


def pose_error(
    position: Float[Tensor, "b 3"],
    rotation: Float[Tensor, "b 3 3"],
    other_position: Float[Tensor, "b 3"],
    other_rotation: Float[Tensor, "b 3 3"],
) -> Float[Tensor, " b"]:
    """Distance of two poses [m], what `inverse` minimises: one radian counts as ROTATION_LENGTH.

    Exactly, an angle t counts as 2 sin(t / 2), as the Frobenius distance of the matrices has it.
    """
    turn = (rotation - other_rotation).flatten(1).norm(dim=1) * (ROTATION_LENGTH / math.sqrt(2))
    return torch.hypot((position - other_position).norm(dim=1), turn)


def proprioception(qpos: Float[Tensor, "b 8"]) -> Float[Tensor, "b 7"]:
    """What the policy is told of the robot, from joint positions: see `genvla.types` for frames and units."""
    position, rotation = forward(qpos[:, :6])
    angles = matrix_to_euler(rotation @ _constants(qpos.dtype, qpos.device).top_down.T)
    opening = ((qpos[:, 6:] - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED)).mean(-1, keepdim=True).clamp(0, 1)
    return torch.cat((position, angles, opening), -1)
