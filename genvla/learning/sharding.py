"""A policy whose weights, gradients and optimizer state are split over the processes that train it (FSDP2), through Fabric's
ModelParallelStrategy.

Updates run on shards: each layer's weights are gathered when it computes and let go after. Collecting and evaluating run on
whole weights, gathered once: there, processes take different numbers of steps, so none may wait for another in the middle. On
disk there is one kind of checkpoint, whole, whichever way it was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from genvla.policy.activation_checkpointing import CheckpointedLayer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

M = TypeVar("M", bound=nn.Module)

FORWARD_METHODS = ("training_step", "evaluate_actions", "keep_frozen", "act", "value")
"""Methods of the trained modules that compute with its weights."""


def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Splits every layer of the towers, and what is left as one part, over the mesh's data-parallel dimension; in place."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    data_parallel = mesh["data_parallel"]
    for layer in module.modules():
        if isinstance(layer, CheckpointedLayer):
            fully_shard(layer, mesh=data_parallel)
    fully_shard(module, mesh=data_parallel)
    for name in FORWARD_METHODS:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)
    # The first call decides which part is the root of all, and evaluations call the policy inside.
    root: Any = module
    root.awake = lambda: None
    register_fsdp_forward_method(root, "awake")
    root.awake()
    root.reshard()  # the root stays whole after a forward, and an optimizer made now would get tensors that are let go later
    return module


def is_sharded(module: nn.Module) -> bool:
    """Whether its weights are split over processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside, every process holds all weights, as plain tensors, and no call on the module waits for another process.

    All processes enter and leave together. Does nothing where nothing is sharded.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not module, recurse=False)
            part.reshard()


def whole(tree: Any) -> Any:
    """A nested structure with every split tensor put together, on the CPU. All processes call it together."""
    return tree_map(lambda leaf: leaf.full_tensor().cpu() if isinstance(leaf, DTensor) else leaf, tree)


def split_like(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's whole state, as a checkpoint keeps it, split as the optimizer's parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def split(value: Any, parameter: Tensor) -> Any:
        if not (isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape):
            return value
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)

    return {
        **state,
        "state": {
            number: {name: split(value, parameters[number]) for name, value in values.items()}
            for number, values in state["state"].items()
        },
    }


def skeleton(module: M) -> M:
    """A copy without values, to be filled by `load_state_dict(whole_state, assign=True)`; of a module that is not yet sharded."""
    memo = {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=tensor.requires_grad)
        for tensor in module.parameters()
    }
    return deepcopy(module, memo)
