"""What policy and robot say to each other over the wire, and how each checks the other's word.

A request is a map in the manner of openpi's: `observation/image` uint8 [h, w, 3] (or [n, h, w, 3] for n cameras),
`observation/state` [7] (the proprioception of genvla.types), `prompt`, and, where a run must be repeatable, `noise` [c, 7], the
A^0 that the flow starts from. The answer holds `actions` [c, 7] in physical units (genvla.types.ActionChunk) and timings in ms.
An answer that is text instead of bytes is an error, of one line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genvla.serving.wire import WireError
from genvla.types import ACTION_DIM, PROPRIO_DIM, Observation

IMAGE, STATE, PROMPT, NOISE, ACTIONS = "observation/image", "observation/state", "prompt", "noise", "actions"

MAX_SIDE = 4096
"""Pixels of a picture's side."""

MAX_PROMPT = 1000
"""Characters of an instruction."""


def request(
    image: UInt8[np.ndarray, "*n h w 3"], state: Float[np.ndarray, 7], prompt: str, noise: Float[np.ndarray, "c 7"] | None = None
) -> dict[str, Any]:
    """The request of one decision."""
    message: dict[str, Any] = {IMAGE: image, STATE: np.asarray(state, dtype=np.float32), PROMPT: prompt}
    return message if noise is None else {**message, NOISE: np.asarray(noise, dtype=np.float32)}


def read_request(message: Any, noise_shape: tuple[int, int]) -> tuple[Observation, Float[Tensor, "1 c 7"] | None]:
    """The observation of a request as a batch of one, and its noise if it brings any.

    Args:
        message: what the wire brought.
        noise_shape: [c, 7] of the noise that the policy starts from.

    Raises:
        WireError: an entry is missing or is not what it should be.
    """
    if not isinstance(message, dict):
        raise WireError(f"request: found {type(message).__name__}, want a map")
    image, prompt = message.get(IMAGE), message.get(PROMPT)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise WireError(f"{IMAGE}: found {_name(image)}, want uint8 [h, w, 3] or [n, h, w, 3]")
    if not all(0 < side <= MAX_SIDE for side in image.shape):
        raise WireError(f"{IMAGE}: found {_name(image)}, want sides from 1 to {MAX_SIDE}")
    if not isinstance(prompt, str) or not 0 < len(prompt) <= MAX_PROMPT:
        found = f"{len(prompt)} characters" if isinstance(prompt, str) else type(prompt).__name__
        raise WireError(f"{PROMPT}: found {found}, want text of 1 to {MAX_PROMPT} characters")
    state = _floats(message.get(STATE), STATE, (PROPRIO_DIM,))
    noise = message.get(NOISE)
    images = torch.from_numpy(np.array(image)).reshape(1, -1, *image.shape[-3:])
    return (
        Observation(images=images, instructions=[prompt], proprio=state[None]),
        None if noise is None else _floats(noise, NOISE, noise_shape)[None],
    )


def read_actions(message: Any) -> Float[np.ndarray, "c 7"]:
    """The actions of an answer, float32.

    Raises:
        WireError: they are missing, of the wrong shape, or not finite; or the answer is an error.
    """
    if isinstance(message, str):
        raise WireError(f"the server says: {' '.join(message.split())[:200]}")
    if not isinstance(message, dict):
        raise WireError(f"answer: found {type(message).__name__}, want a map")
    actions = message.get(ACTIONS)
    rows = actions.shape[0] if isinstance(actions, np.ndarray) and actions.ndim == 2 else 0
    return _floats(actions, ACTIONS, (max(rows, 1), ACTION_DIM)).numpy()


def _floats(value: Any, name: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.shape != shape:
        raise WireError(f"{name}: found {_name(value)}, want numbers {list(shape)}")
    with np.errstate(over="ignore"):
        numbers = value.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise WireError(f"{name}: found numbers that are not finite")
    return torch.from_numpy(numbers)


def _name(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
