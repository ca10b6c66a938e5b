"""What the user's words stand for: the policy to ask, and the set-up it was trained in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from deploy.client import PolicyClient, read_secret
from deploy.policy import LocalPolicy, Policy
from genvla.errors import UserError
from genvla.sim.config import SimConfig, load_sim
from genvla.types import PROPRIO_DIM

TIMEOUT = 0.25
"""Seconds that a server has to decide while an arm waits: with the control step before it, within the arm's watchdog."""

PATIENT = 30.0
"""The same where time stands still meanwhile."""


@dataclass(frozen=True)
class PolicySource:
    """A policy ready to be asked.

    digest: of its checkpoint. sim: the simulated set-up of its training, the standard one where it is not known.
    integration_steps: of its flow.
    """

    policy: Policy
    digest: str
    sim: SimConfig
    integration_steps: int


@contextmanager
def opened_policy(
    where: str, *, timeout: float, token_file: Path | None = None, device: str = "auto", seed: int = 0
) -> Iterator[PolicySource]:
    """The policy of a checkpoint's folder, or behind a server's address (ws://HOST:PORT), which has `timeout` seconds to decide.

    Raises:
        UserError: there is none there.
    """
    source = _served(where, token_file, timeout) if where.startswith(("ws://", "wss://")) else _loaded(Path(where), device, seed)
    try:
        yield source
    finally:
        source.policy.close()


def _loaded(checkpoint: Path, device: str, seed: int) -> PolicySource:
    from genvla.evaluation.command import find_device
    from genvla.evaluation.provenance import digest
    from genvla.policy.checkpoints import load_policy

    policy = load_policy(checkpoint).to(find_device(device)).eval()
    sim = load_sim(checkpoint) if checkpoint.is_dir() else None
    sim = sim or replace(SimConfig(), image_size=policy.config.processor.image_size)
    local = LocalPolicy(policy, seed)
    size = policy.config.processor.image_size  # decided once, so that first-time costs come before the arm waits for them
    local.decide(np.zeros((size, size, 3), np.uint8), np.zeros(PROPRIO_DIM, np.float32), "put the cube in the bowl", None)
    return PolicySource(local, digest(checkpoint), sim, policy.integration_steps)


def _served(url: str, token_file: Path | None, timeout: float) -> PolicySource:
    client = PolicyClient(url, read_secret(token_file), timeout)
    told: dict[str, Any] = client.metadata
    try:
        sim = replace(SimConfig(), image_size=int(told.get("image_size", SimConfig().image_size)))
        if told.get("sim") is not None:
            sim = TypeAdapter(SimConfig).validate_python(told["sim"])
        return PolicySource(client, str(told.get("checkpoint_digest", "")), sim, int(told.get("integration_steps", 0)))
    except (ValidationError, ValueError, TypeError) as error:
        client.close()
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(f"{url}: the greeting cannot be used ({first}), want that of `genvla serve`") from None
