"""What of an observation's encoding fine-tuning does not change: computed once when it is collected, reused in every epoch.

What that is follows from requires_grad alone. A frozen vision tower gives the same tokens in every update; where the projector,
the text embedding and the VLM are frozen too, so are the keys and values that proprioception and actions read. Proprioception
itself runs through the action expert's weights and is computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genvla.types import TensorFields

if TYPE_CHECKING:
    from genvla.policy.gemma import Context
    from genvla.policy.pi0 import Pi0
    from genvla.policy.processor import PolicyInputs

Depth = Literal["nothing", "vision", "context"]


@dataclass(frozen=True)
class FrozenPrefix(TensorFields):
    """A batch of b. Holds either `vision` or all else."""

    vision: Float[Tensor, "b t d"] | None = None
    """Tokens of the vision tower, before the projector, of all cameras."""
    keys: Float[Tensor, "b l v g d"] | None = None
    """The VLM's rotated keys in each of l layers, for v image and text tokens."""
    values: Float[Tensor, "b l v g d"] | None = None
    mask: Bool[Tensor, "b v"] | None = None
    mean: Float[Tensor, "b e"] | None = None
    """Mean hidden state of the tokens, for the heads."""
    hidden: Float[Tensor, "b v e"] | None = None
    """All hidden states; only for a policy with a grounding head."""

    @property
    def context(self) -> Context | None:
        """As the model reads it; None if only the vision tower's tokens are here."""
        if self.keys is None or self.values is None or self.mask is None:
            return None
        from genvla.policy.gemma import Context

        return Context(self.keys.unbind(1), self.values.unbind(1), self.mask, self.hidden, self.mean)

    @property
    def nbytes(self) -> int:
        """Memory of all samples."""
        return sum(value.nbytes for value in vars(self).values() if value is not None)


def frozen_depth(pi0: Pi0) -> Depth:
    """How much of the encoding depends on no parameter that trains."""

    def frozen(*modules: nn.Module) -> bool:
        return not any(parameter.requires_grad for module in modules for parameter in module.parameters())

    if not frozen(pi0.vision_tower):
        return "nothing"
    rest_is_frozen = frozen(pi0.multi_modal_projector, pi0.embed_tokens, pi0.joint_model.mixtures["vlm"])
    return "context" if rest_is_frozen else "vision"


@torch.no_grad()
def compute_frozen_prefix(pi0: Pi0, inputs: PolicyInputs, *, hidden: bool) -> FrozenPrefix | None:
    """The frozen part of the encoding; None if there is none. hidden: whether all hidden states are wanted, not only their mean.

    Cameras that no sample has are computed all the same, so that all batches have one shape.
    """
    depth = frozen_depth(pi0)
    if depth == "nothing":
        return None
    vision = pi0.vision_tokens(inputs.images)
    if depth == "vision":
        return FrozenPrefix(vision=vision)
    context = pi0.context(pi0.project(vision), inputs.image_mask, inputs.tokens, inputs.token_mask, features=True)
    return FrozenPrefix(
        keys=torch.stack(context.keys, dim=1),
        values=torch.stack(context.values, dim=1),
        mask=context.mask,
        mean=context.mean,
        hidden=context.hidden if hidden else None,
    )
