"""Rotations as roll-pitch-yaw, matrix, rotation vector and quaternion (w, x, y, z). Radians; any leading axes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def euler_to_matrix(rpy: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """R = Rz(yaw) Ry(pitch) Rx(roll): roll, pitch, yaw about the fixed x, y, z axes, in that order."""
    (cr, cp, cy), (sr, sp, sy) = rpy.cos().unbind(-1), rpy.sin().unbind(-1)
    cy_sp, sy_sp = cy * sp, sy * sp
    entries = (
        *(cy * cp, cy_sp * sr - sy * cr, cy_sp * cr + sy * sr),
        *(sy * cp, sy_sp * sr + cy * cr, sy_sp * cr - cy * sr),
        *(-sp, cp * sr, cp * cr),
    )
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def matrix_to_euler(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Inverse of `euler_to_matrix`, pitch in [-pi/2, pi/2].

    At pitch = +-pi/2 only one combination of roll and yaw is defined; there yaw is 0 and roll carries it all.
    """
    cos_pitch = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    locked = cos_pitch < torch.finfo(matrix.dtype).eps ** 0.5
    free_roll = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    roll = torch.where(locked, torch.atan2(-matrix[..., 1, 2], matrix[..., 1, 1]), free_roll)
    pitch = torch.atan2(-matrix[..., 2, 0], cos_pitch)
    yaw = torch.where(locked, torch.zeros_like(pitch), torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]))
    return torch.stack((roll, pitch, yaw), -1)


def quaternion_to_matrix(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Of (w, x, y, z), which need not be of unit length but must not be zero."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    entries = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit (w, x, y, z) with w >= 0.

    4 q q^T is linear in the matrix; its longest row is q up to scale, with no loss of precision at any angle.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrix.flatten(-2).unbind(-1)
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    xy, xz, yz = m10 + m01, m02 + m20, m21 + m12
    rows = (
        torch.stack((1 + m00 + m11 + m22, wx, wy, wz), -1),
        torch.stack((wx, 1 + m00 - m11 - m22, xy, xz), -1),
        torch.stack((wy, xy, 1 - m00 + m11 - m22, yz), -1),
        torch.stack((wz, xz, yz, 1 - m00 - m11 + m22), -1),
    )
    outer = torch.stack(rows, -2)
    longest = outer.norm(dim=-1).argmax(-1)[..., None, None].expand(*matrix.shape[:-2], 1, 4)
    quaternion = outer.gather(-2, longest).squeeze(-2)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_rotvec(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Axis times angle, the angle in [0, pi]; at pi either of the two opposite axes."""
    quaternion = matrix_to_quaternion(matrix)
    w, axis = quaternion[..., :1], quaternion[..., 1:]
    sine = axis.norm(dim=-1, keepdim=True)
    # 2 atan2(sine, w) / sine, which tends to 2 as the angle goes to 0.
    scale = torch.where(sine > 1e-12, 2 * torch.atan2(sine, w) / sine.clamp_min(1e-12), torch.full_like(sine, 2.0))
    return axis * scale
