"""Seeds from names instead of from state, so that nothing random needs saving to resume a run."""

from __future__ import annotations

from hashlib import blake2b

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and its place: derive_seed(0, "rollout", 3)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A torch generator on `device` seeded with `derive_seed(*parts)`."""
    return torch.Generator(device).manual_seed(derive_seed(*parts))
