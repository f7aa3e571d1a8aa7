"""What lies on the device beside a step, block by block, as the replay of a recipe needs it."""

from collections.abc import Iterator
from typing import Literal

from workbench.adapters.layer import AdapterTensor
from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.estimate.loading import loading_events, moving_events
from workbench.estimate.optimizer import optimizer_bytes, state_blocks
from workbench.estimate.step import Step
from workbench.estimate.trace.replay import Resting
from workbench.models.skeleton import Skeleton

Loading = Literal["loaded", "moved"]
"""Whether weights are loaded to the device one by one, or moved there as a whole with ``model.to``."""


def resting_of(skeleton: Skeleton, plan: AdapterPlan, step: Step, loading: Loading = "loaded") -> Resting:
    """The blocks of base, adapter and optimizer."""
    if loading == "moved":
        events = list(moving_events(skeleton, step.storage))
    else:
        events = list(loading_events(skeleton, step.loaded, step.storage))
    tensors = list(_tensors(plan))
    adapter = [_bytes(tensor, plan) for tensor in tensors]
    trained = [tensor for tensor in tensors if tensor.is_trained]
    states = [
        size for tensor in trained for size in state_blocks(step.optimizer, tensor, BYTES_OF[tensor.dtype(plan.dtype)])
    ]
    # What is trained beside the adapter's own tensors: new rows, whole modules, biases.
    adapter += _positive(plan.added_bytes - sum(adapter))
    states += _positive(optimizer_bytes(step.optimizer, plan) - sum(states))
    if "fused" in step.optimizer:
        states += [4] * len(trained)  # a count of steps
    return Resting(events, adapter, states, step.workspace)


def _tensors(plan: AdapterPlan) -> Iterator[AdapterTensor]:
    for module in plan.modules:
        for _ in range(module.count):
            yield from module.tensors


def _bytes(tensor: AdapterTensor, plan: AdapterPlan) -> int:
    return tensor.size * BYTES_OF[tensor.dtype(plan.dtype)]


def _positive(size: int) -> list[int]:
    return [size] if size > 0 else []
