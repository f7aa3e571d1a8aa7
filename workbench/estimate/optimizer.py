"""Bytes of optimizer state on the device."""

from workbench.adapters.layer import AdapterTensor
from workbench.estimate.adapter.plan import AdapterPlan
from workbench.estimate.adapter.safetensors_size import BYTES_OF

SMALLEST_8_BIT = 4096
"""bitsandbytes keeps 32-bit state for tensors of fewer elements."""
SMALLEST_PAGED = 100_000
"""bitsandbytes keeps state of smaller tensors on the device even when it pages."""

_OF_TORCH = {"adamw_torch_fused": 2, "adamw_torch": 2, "adagrad": 1, "rmsprop": 1}
"""Moments of PyTorch's optimizers, which have the type of the parameter."""


def optimizer_bytes(name: str, plan: AdapterPlan) -> int:
    """State of one optimizer for the trained tensors of an adapter.

    ``adamw_torch*`` hold two moments in the type of the parameter, Adagrad and RMSprop one; those of bitsandbytes hold
    one (Lion), two (AdamW) or three (AdEMAMix) in float32, the 8-bit ones in a byte with a float32 scale for 256
    elements; ``paged_*`` keep large states in host memory; Adafactor holds one row and one column; SGD nothing. What
    the adapter's method keeps from step to step comes on top.
    """
    if name == "sgd":
        return plan.kept_bytes
    if name in _OF_TORCH:
        return _OF_TORCH[name] * plan.trained_bytes + plan.kept_bytes
    total = plan.kept_bytes
    counted = 0
    for module in plan.modules:
        for tensor in (tensor for tensor in module.tensors if tensor.is_trained):
            counted += tensor.size * module.count
            total += module.count * _state_of(name, tensor.size, tensor.shape)
    rest = plan.trainable_parameters - counted
    return total + (_state_of(name, rest, (rest,)) if rest else 0)


def state_blocks(name: str, tensor: AdapterTensor, width: int) -> tuple[int, ...]:
    """Bytes of each tensor of the optimizer's state on the device for one tensor in a type of ``width`` bytes."""
    if name == "sgd":
        return ()
    if name in _OF_TORCH:
        return (width * tensor.size,) * _OF_TORCH[name]
    return _blocks_of(name, tensor.size, tensor.shape)


def _state_of(name: str, size: int, shape: tuple[int, ...]) -> int:
    return sum(_blocks_of(name, size, shape))


def _blocks_of(name: str, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    if name == "adafactor":
        return tuple(4 * extent for extent in shape[-2:]) if len(shape) > 1 else (4 * size,)
    if name.startswith("paged_") and size >= SMALLEST_PAGED:
        return ()
    moments = 1 if "lion" in name else 3 if "ademamix" in name else 2
    if name.endswith("8bit") and size >= SMALLEST_8_BIT:
        return (size, BYTES_OF["float32"] * -(-size // 256)) * moments
    return (BYTES_OF["float32"] * size,) * moments
