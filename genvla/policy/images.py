"""Images of the camera's size to images of the model's size, as the checkpoints were trained."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F


def squash(images: UInt8[Tensor, "b n h w 3"], size: int) -> UInt8[Tensor, "b n s s 3"]:
    """To size x size with OpenCV's Lanczos-4, without antialiasing and whatever the aspect, as open-pi-zero does in evaluation.

    On the CPU it is OpenCV itself, image by image; elsewhere `squash_by_matrices`, so that images need not leave the device.
    """
    if images.device.type != "cpu":
        return squash_by_matrices(images, size)
    b, n, h, w, _ = images.shape
    flat = images.reshape(b * n, h, w, 3).numpy()
    resized = np.empty((b * n, size, size, 3), dtype=np.uint8)
    for image, result in zip(flat, resized, strict=True):
        cv2.resize(image, (size, size), dst=result, interpolation=cv2.INTER_LANCZOS4)
    return torch.from_numpy(resized).reshape(b, n, size, size, 3)


def squash_by_matrices(images: UInt8[Tensor, "b n h w 3"], size: int) -> UInt8[Tensor, "b n s s 3"]:
    """The same as two matrix products per channel: the filter is linear, and separable into rows and columns.

    Within one step of 255 of OpenCV, whose weights for uint8 have 11 bits. Several times slower than OpenCV on a CPU.
    """
    b, n, h, w, _ = images.shape
    rows, columns = (lanczos_matrix(length, size, str(images.device)) for length in (h, w))
    pixels = images.reshape(b * n, h, w, 3).permute(0, 3, 1, 2).float()
    resized = (rows @ (pixels @ columns.T)).round_().clamp_(0, 255).to(torch.uint8)
    return resized.permute(0, 2, 3, 1).reshape(b, n, size, size, 3)


@lru_cache(maxsize=16)
def lanczos_matrix(before: int, after: int, device: str) -> Float[Tensor, "after before"]:
    """OpenCV's Lanczos-4 weights along one axis, found by resizing a picture of the identity along that axis alone."""
    identity = np.eye(before, dtype=np.float32)
    return torch.from_numpy(cv2.resize(identity, (before, after), interpolation=cv2.INTER_LANCZOS4)).to(device)


def letterbox(images: UInt8[Tensor, "b n h w 3"], size: int) -> UInt8[Tensor, "b n s s 3"]:
    """To size x size with the aspect kept and black borders, bilinear with antialiasing, as openpi does."""
    b, n, h, w, _ = images.shape
    ratio = max(h, w) / size
    height, width = int(h / ratio), int(w / ratio)
    pixels = images.reshape(b * n, h, w, 3).permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    top, left = (size - height) // 2, (size - width) // 2
    padded = F.pad(resized.round_().clamp_(0, 255), (left, size - width - left, top, size - height - top))
    return padded.to(torch.uint8).permute(0, 2, 3, 1).reshape(b, n, size, size, 3)
