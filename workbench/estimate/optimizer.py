"""Bytes of optimizer state on the device."""

from workbench.adapters.layer import AdapterTensor
from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.adapter.safetensors_size import BYTES_OF
from workbench.recipe.optimizers import OPTIMIZERS

SMALLEST_8_BIT = 4096
"""bitsandbytes and torchao keep moments of tensors of fewer elements whole."""
SMALLEST_PAGED = 100_000
"""bitsandbytes keeps state of smaller tensors on the device even when it pages."""

_BLOCK = 256
"""Elements that share a scale."""


def optimizer_bytes(name: str, plan: AdapterPlan) -> int:
    """State of one optimizer for the trained tensors of an adapter, as :mod:`workbench.recipe.optimizers` describes it.

    What the adapter's method keeps from step to step comes on top. Some tables are not counted: bitsandbytes' maps of
    256 values, which tensors share, and counts of steps.
    """
    optimizer = OPTIMIZERS[name]
    width = BYTES_OF[plan.dtype]
    if optimizer.keeps == "nothing":
        return plan.kept_bytes
    if optimizer.keeps == "parameter" and not (optimizer.compensates and width < BYTES_OF["float32"]):
        return optimizer.moments * plan.trained_bytes + plan.kept_bytes
    total, counted = plan.kept_bytes, 0
    for module in plan.modules:
        for tensor in (tensor for tensor in module.tensors if tensor.is_trained):
            counted += tensor.size * module.count
            total += module.count * sum(state_blocks(name, tensor, BYTES_OF[tensor.dtype(plan.dtype)]))
    rest = plan.trainable_parameters - counted
    return total + (sum(_blocks(name, rest, (rest,), width)) if rest else 0)


def state_blocks(name: str, tensor: AdapterTensor, width: int) -> tuple[int, ...]:
    """Bytes of each tensor of the optimizer's state on the device for one tensor in a type of ``width`` bytes."""
    return _blocks(name, tensor.size, tensor.shape, width)


def _blocks(name: str, size: int, shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    optimizer, float32 = OPTIMIZERS[name], BYTES_OF["float32"]
    scales = float32 * -(-size // _BLOCK)
    match optimizer.keeps:
        case "nothing":
            return ()
        case "factored":
            return tuple(float32 * extent for extent in shape[-2:]) if len(shape) > 1 else (float32 * size,)
        case "parameter":
            more = optimizer.compensates and width < float32
            return (width * size,) * (optimizer.moments + more)
        case "torchao 8-bit" | "torchao 4-bit":
            if size < SMALLEST_8_BIT or size % _BLOCK:
                return (width * size,) * optimizer.moments
            bits = 8 if optimizer.keeps == "torchao 8-bit" else 4
            # A map of the values that the codes stand for, which no tensors share.
            return (size * bits // 8, scales, float32 * 2**bits) * optimizer.moments
    if optimizer.is_paged and size >= SMALLEST_PAGED:
        return ()
    if optimizer.keeps == "8-bit" and size >= SMALLEST_8_BIT:
        return (size, scales) * optimizer.moments
    return (float32 * size,) * optimizer.moments
