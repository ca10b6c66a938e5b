"""The wire format against openpi's own client, and against whatever bytes there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from genvla.serving.messages import read_actions, read_request, request
from genvla.serving.wire import WireError, pack, unpack

msgpack = pytest.importorskip("msgpack")

NUMERIC = st.sampled_from(["|b1", "|u1", "<i4", ">i2", "<f4", "<f8"])
ARRAYS = NUMERIC.flatmap(
    lambda name: arrays.arrays(np.dtype(name), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
MESSAGES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(), ARRAYS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(MESSAGES)
def test_what_is_packed_is_unpacked(message: Any) -> None:
    assert_equal(unpack(pack(message)), message)


@given(MESSAGES)
def test_openpi_client_reads_what_we_write_and_we_what_it_writes(message: Any) -> None:
    openpi = pytest.importorskip("openpi_client.msgpack_numpy")
    assert openpi.packb(message) == pack(message)
    assert_equal(openpi.unpackb(pack(message)), unpack(openpi.packb(message)))


@settings(max_examples=2000)
@given(st.binary(max_size=300))
def test_random_bytes_are_a_message_or_a_wire_error(data: bytes) -> None:
    try:
        message = unpack(data)
    except WireError as error:
        assert "\n" not in str(error)
        return
    with pytest.raises(WireError):
        read_request(message, (4, 7))


@settings(max_examples=1000)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_damaged_requests_are_requests_or_wire_errors(seed: int, hits: int) -> None:
    rng = np.random.default_rng(seed)
    good = request(np.zeros((4, 6, 3), np.uint8), np.zeros(7), "put it there", np.zeros((4, 7)))
    data = bytearray(pack(good))
    for place in rng.integers(0, len(data), hits):
        data[place] = rng.integers(256)
    try:
        observation, noise = read_request(unpack(bytes(data)), (4, 7))
    except WireError as error:
        assert "\n" not in str(error)
    else:
        assert observation.images.shape[-1] == 3 and observation.proprio.isfinite().all()
        assert noise is None or noise.shape == (1, 4, 7)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ({b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [0]}, "dtype"),
        ({b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [2**30]}, "bytes"),
        ({b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [-1]}, "shape"),
        ({b"__ndarray__": True, b"data": "1234", b"dtype": "<f4", b"shape": [1]}, "data"),
        ({b"__ndarray__": True, b"data": b"1234", b"dtype": "(2,)<f2", b"shape": [1]}, "dtype"),
        ({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}, "scalar"),
    ],
)
def test_arrays_that_are_none(array: dict[bytes, Any], words: str) -> None:
    with pytest.raises(WireError, match=words):
        unpack(msgpack.packb(array))


def test_a_message_cannot_ask_for_memory() -> None:
    with pytest.raises(WireError):
        unpack(b"\xdd\xff\xff\xff\xff" * 500)  # lists in lists, each of 2^32 items


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation/image": np.zeros((4, 4, 3), np.float32)}, "float32 .*want uint8"),
        ({"observation/image": np.zeros((0, 4, 3), np.uint8)}, "sides"),
        ({"observation/state": np.zeros(8)}, r"\[8\], want numbers \[7\]"),
        ({"observation/state": np.full(7, np.nan)}, "not finite"),
        ({"observation/state": np.full(7, 1e300)}, "not finite"),
        ({"prompt": ""}, "0 characters"),
        ({"prompt": 3}, "int"),
        ({"noise": np.zeros((3, 7))}, r"\[3, 7\], want numbers \[4, 7\]"),
    ],
)
def test_requests_that_are_none(change: dict[str, Any], words: str) -> None:
    good = request(np.zeros((4, 4, 3), np.uint8), np.zeros(7), "put it there", np.zeros((4, 7)))
    read_request(good, (4, 7))
    with pytest.raises(WireError, match=words):
        read_request({**good, **change}, (4, 7))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("error: no", "the server says: error: no"),
        ([1], "list"),
        ({}, "NoneType"),
        ({"actions": np.zeros((4, 6))}, r"\[4, 6\]"),
        ({"actions": np.zeros((0, 7))}, r"\[0, 7\]"),
        ({"actions": np.full((4, 7), np.inf)}, "not finite"),
    ],
)
def test_answers_that_are_none(answer: Any, words: str) -> None:
    with pytest.raises(WireError, match=words):
        read_actions(answer)


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(other, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    elif isinstance(other, dict):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert_equal(one[key], value)
    elif isinstance(other, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other
