"""What checkpoints take of host memory, and how long copying them takes. Sizes are in bytes."""

from workbench.estimate.layer_shape import ModelShape
from workbench.estimate.step import Step, activation_bytes

LINK_BYTES_PER_SECOND = 12e9
"""Assumed speed of the link between host and GPU: PCIe 3.0 × 16, or 4.0 × 8. A run measures its own."""

_HOST_SHARE = 0.9
"""Share of the available host memory that checkpoints may take."""


def host_checkpoint_bytes(shape: ModelShape, step: Step) -> int:
    """Pinned host memory for the checkpoints of a micro-batch; 0 if they stay on the device.

    PyTorch's allocator of pinned memory rounds each of them up to a power of two.
    """
    if not step.offloads:
        return 0
    return shape.depth * (1 << (stream_bytes(shape, step) - 1).bit_length())


def copying_seconds(shape: ModelShape, step: Step) -> float:
    """Seconds that a micro-batch's checkpoints take to the host and back, at the assumed speed of the link."""
    return 2 * shape.depth * stream_bytes(shape, step) / LINK_BYTES_PER_SECOND if step.offloads else 0.0


def stream_bytes(shape: ModelShape, step: Step) -> int:
    """The hidden states of a micro-batch, which a checkpointed layer keeps."""
    return activation_bytes(step) * step.tokens * shape.hidden


def is_within(host_bytes: int, available: int | None) -> bool:
    """Whether the host has this much memory to spare; it is taken for granted if what is available is unknown."""
    return available is None or host_bytes <= _HOST_SHARE * available
