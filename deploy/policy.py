"""Who decides: a policy in this process or one behind a server, asked in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8

from deploy.client import PolicyFault
from genvla.errors import UserError
from genvla.types import ACTION_DIM, Observation

if TYPE_CHECKING:
    from genvla.policy.flow_policy import FlowPolicy


class Policy(Protocol):
    """What the runner asks."""

    def decide(
        self, image: UInt8[np.ndarray, "h w 3"], state: Float[np.ndarray, 7], prompt: str, noise: Float[np.ndarray, "c 7"] | None
    ) -> Float[np.ndarray, "c 7"]:
        """A chunk of actions (genvla.types.ActionChunk) from a picture, proprioception, instruction and the noise A^0, which is
        the policy's own when None. PolicyFault when there is none this time."""

    def close(self) -> None:
        """Ends the connection, if it is one."""


class LocalPolicy:
    """A policy in this process; runs exactly as in an evaluation.

    Args:
        policy: in evaluation mode, on the device where it shall run.
        seed: of the noise where a decision brings none.
    """

    def __init__(self, policy: FlowPolicy, seed: int = 0) -> None:
        from genvla.evaluation.evaluate import policy_act
        from genvla.seeding import generator

        self._act = policy_act(policy)
        self._noise_shape = policy.model_config.horizon, policy.model_config.action_dim
        self._generator = generator("cpu", seed, "deploy")

    def decide(
        self, image: UInt8[np.ndarray, "h w 3"], state: Float[np.ndarray, 7], prompt: str, noise: Float[np.ndarray, "c 7"] | None
    ) -> Float[np.ndarray, "c 7"]:
        observation = Observation(
            images=torch.from_numpy(image)[None, None],
            instructions=[prompt],
            proprio=torch.from_numpy(np.asarray(state, dtype=np.float32))[None],
        )
        drawn = torch.randn(self._noise_shape, generator=self._generator) if noise is None else torch.from_numpy(noise)
        try:
            actions = self._act(observation, drawn[None])[0].float().numpy()
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:  # a GPU that fell off the bus, say
            raise PolicyFault(f"policy: {' '.join(str(error).split())[:150]}") from error
        if not np.isfinite(actions).all() or actions.shape[1] != ACTION_DIM:
            raise PolicyFault(f"policy: actions {list(actions.shape)} that are not finite, or not {ACTION_DIM} wide")
        return actions

    def close(self) -> None:
        pass
