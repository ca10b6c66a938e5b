"""`genvla serve`: a checkpoint behind a websocket, until it is interrupted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genvla.errors import UserError
from genvla.serving.server import Limits, PolicyServer, check_exposure
from genvla.serving.wire import require_serving

if TYPE_CHECKING:
    from genvla.policy.flow_policy import FlowPolicy

LIMITS = Limits()
MIN_TOKEN = 16


def serve_command(
    checkpoint: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    limits: Limits = LIMITS,
    integration_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Serve a policy over a websocket to robots and to openpi-client, until interrupted.

    Args:
        checkpoint: Folder of the policy, as training or import wrote it.
        host: Address to listen on; others than 127.0.0.1 can be reached from other machines and need a token.
        port: Port to listen on; 0 takes any free one.
        token_file: File with a secret of at least 16 characters that clients must show.
        limits: What one client may ask for.
        integration_steps: Steps in which the flow is integrated; by default those of the checkpoint.
        seed: Seed of the noise for requests that bring none.
        device: Where the policy runs: auto takes a GPU if there is one; otherwise a torch device such as cpu or cuda:1.

    Raises:
        UserError: something given does not exist or cannot be used.
    """
    require_serving()
    token = None if token_file is None else read_token(token_file)
    check_exposure(host, token)
    if integration_steps is not None and integration_steps < 1:
        raise UserError(f"integration_steps: {integration_steps} found, at least 1 wanted")
    from genvla.evaluation.command import find_device
    from genvla.evaluation.evaluate import policy_act
    from genvla.policy.checkpoints import load_policy

    policy = load_policy(checkpoint).to(find_device(device)).eval()
    if integration_steps is not None:
        policy.integration_steps = integration_steps
    metadata = metadata_of(policy, checkpoint)
    noise_shape = policy.model_config.horizon, policy.model_config.action_dim
    server = PolicyServer(policy_act(policy), noise_shape, metadata, token, limits, seed)
    print(f"warm-up: {1000 * server.warm_up(policy.config.processor.image_size):.0f} ms")
    asyncio.run(_until_interrupted(server, host, port))
    print(f"served {server.counts.answers} decisions to {server.counts.connections} clients, {server.counts.errors} errors")


def metadata_of(policy: FlowPolicy, checkpoint: Path) -> dict[str, Any]:
    """What a client is greeted with: enough to tell which policy answers, and in what units."""
    import json
    from dataclasses import asdict

    from genvla.evaluation.provenance import digest, versions
    from genvla.sim.config import load_sim
    from genvla.types import CONTROL_HZ

    sim = load_sim(checkpoint) if checkpoint.is_dir() else None

    return {
        "policy": "genvla",
        "checkpoint_digest": digest(checkpoint),
        "action_horizon": policy.processor.config.executed or policy.model_config.horizon,
        "noise_shape": [policy.model_config.horizon, policy.model_config.action_dim],
        "control_hz": CONTROL_HZ,
        "integration_steps": policy.integration_steps,
        "image_size": policy.config.processor.image_size,
        "actions": "dx dy dz [m], droll dpitch dyaw [rad] of the target pose, gripper [1 open, 0 closed]",
        "sim": None if sim is None else json.loads(json.dumps(asdict(sim))),
        "versions": versions(),
    }


def read_token(path: Path) -> str:
    """The secret in a file, without the white space around it; UserError when there is none worth the name."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}), want a text file with a secret") from error
    if len(token) < MIN_TOKEN or len(token.split()) != 1 or not token.isascii():
        raise UserError(f"{path}: {len(token)} characters found, one ASCII word of at least {MIN_TOKEN} wanted")
    return token


async def _until_interrupted(server: PolicyServer, host: str, port: int) -> None:
    listening = await server.listen(host, port)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    address = f"[{host}]" if ":" in host else host
    print(f"serving on ws://{address}:{listening.sockets[0].getsockname()[1]}, health at /healthz; Ctrl-C ends it", flush=True)
    async with listening:
        await stop.wait()
