"""Seeds from names instead of from state: the same scene comes out whatever was built before it, in whatever process."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and its place: derive_seed(0, "scene", 3)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator seeded with `derive_seed(*parts)`."""
    return np.random.default_rng(derive_seed(*parts))
