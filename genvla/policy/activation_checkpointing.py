"""Activation checkpointing: keep a layer's inputs alone, and compute what is inside once more on the way back. Less memory, about
a third more time, the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class CheckpointedLayer(nn.Module):
    """A layer that can be told to keep nothing but its inputs. It has no randomness, so no generator's state is kept."""

    keeps_inputs_only = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.keeps_inputs_only and torch.is_grad_enabled()):
            return super().__call__(*args, **kwargs)
        return checkpoint(super().__call__, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def checkpoint_activations(module: nn.Module, enabled: bool = True) -> None:
    """Tell every layer of a model that can: those of the vision tower, of the VLM and of the action expert."""
    for layer in module.modules():
        if isinstance(layer, CheckpointedLayer):
            layer.keeps_inputs_only = enabled
