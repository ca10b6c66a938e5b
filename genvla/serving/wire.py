"""Bytes of the websocket's messages: msgpack with NumPy arrays, as openpi-client 0.1 writes and reads them.

An array travels as a map with the byte-string keys `__ndarray__`, `data` (C order), `dtype` (NumPy's string, "<f4") and `shape`;
a NumPy scalar as `__npgeneric__`, `data` and `dtype`. Only plain numbers are taken: nothing read from the wire can run code, and
nothing is allocated that was not sent.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from genvla.errors import UserError

KINDS = "biuf"
"""Booleans, integers, floats."""

MAX_ITEMS = 1024
"""Of a list or map in a message; arrays are one item."""


class WireError(ValueError):
    """These bytes are no message. One line."""


def require_serving() -> None:
    """Raises a UserError that says what to install when the packages of the `serve` extra are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("websockets", "msgpack") if find_spec(name) is None]
    if missing:
        raise UserError(f"serving: {' and '.join(missing)} not installed, want pip install 'genvla[serve]'")


def pack(message: Any) -> bytes:
    """A message of maps with text keys, lists, text, numbers and NumPy arrays as bytes."""
    import msgpack

    return msgpack.packb(message, default=_pack_numpy)


def unpack(data: bytes) -> Any:
    """The message in these bytes; its arrays are read-only views of them.

    Raises:
        WireError: for whatever else the bytes may be.
    """
    import msgpack

    try:
        return msgpack.unpackb(data, object_hook=_unpack_numpy, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS)
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"no msgpack message ({type(error).__name__}: {' '.join(str(error).split())[:100]})") from None


def _pack_numpy(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in KINDS:
        raise TypeError(f"{type(value).__name__} cannot be sent, want numbers, text, lists, maps or numeric arrays")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _unpack_numpy(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        number = value.get(b"data")
        if not isinstance(number, bool | int | float):
            raise WireError(f"a NumPy scalar holds {type(number).__name__}, want a number")
        return _dtype(value).type(number)
    return value


def _array(value: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(value), value.get(b"data"), value.get(b"shape")
    if not isinstance(data, bytes) or not isinstance(shape, list | tuple):
        raise WireError("an array lacks data or shape")
    if len(shape) > 8 or not all(type(length) is int and 0 <= length < 2**31 for length in shape):
        raise WireError(f"an array has the shape {str(shape)[:60]}, want at most 8 lengths from 0 on")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"an array {dtype.str} {list(shape)} has {len(data)} bytes, want {math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(value: dict[Any, Any]) -> np.dtype:
    name = value.get(b"dtype")
    try:
        dtype = np.dtype(name) if isinstance(name, str) and len(name) <= 8 else None
    except (TypeError, ValueError, SyntaxError):  # NumPy's parser of type strings
        dtype = None
    if dtype is None or dtype.kind not in KINDS or dtype.hasobject or dtype.shape:
        raise WireError(f"an array has the dtype {str(name)[:20]!r}, want booleans, integers or floats")
    return dtype
