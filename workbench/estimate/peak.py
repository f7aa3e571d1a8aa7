"""The predicted peak of device memory in a training step, and the terms that it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from workbench.machine.device import Device

CUBLAS_WORKSPACE = 2 * 8_519_680
"""Bytes that torch allocates for cuBLAS: 2 × 4096 KiB and 8 × 16 KiB (``getChosenWorkspaceSize``) for each handle.

Handles belong to a thread (``CublasHandlePool.cpp``), and the backward pass runs in a thread of its own.
"""

TERMS = (
    "weights",
    "quantisation_constants",
    "adapters",
    "gradients",
    "optimizer",
    "saved_activations",
    "recomputation",
    "logits",
    "loss",
    "workspace",
)
"""What allocated memory is made of, in the order it is shown. ``cuda_context`` is not a part of it but added to it."""

Method = Literal["trace", "closed-form"]
Moment = Literal["forward", "loss", "first backward layer", "last backward layer", "backward", "optimizer"]


@dataclass(frozen=True)
class Peak:
    """The predicted peak.

    Attributes:
        allocated_bytes: as ``torch.cuda.max_memory_allocated`` counts.
        reserved_bytes: as ``torch.cuda.max_memory_reserved`` counts, with what PyTorch's allocator keeps for reuse.
        terms: bytes by name; all but ``cuda_context`` add up to ``allocated_bytes``.
        moment: the part of the step in which the peak occurs.
        host_bytes: pinned host memory that checkpoints take beside it.
        reserved_range: the least and the most reserved memory, where steps of varying lengths were replayed.
        method: ``trace`` (a traced step, accurate to 2 %) or ``closed-form`` (≈; see ``docs/accuracy.md``).
    """

    allocated_bytes: int
    reserved_bytes: int
    terms: Mapping[str, int]
    moment: Moment
    method: Method
    reserved_range: tuple[int, int] | None = None
    host_bytes: int = 0

    @property
    def device_bytes(self) -> int:
        """What a device must have free: reserved memory and the CUDA context."""
        return self.reserved_bytes + self.terms["cuda_context"]

    def with_more(self, term: str, size: int) -> "Peak":
        """The same peak with ``size`` bytes more in one of its terms, held during the whole step."""
        ends = self.reserved_range
        return replace(
            self,
            allocated_bytes=self.allocated_bytes + size,
            reserved_bytes=self.reserved_bytes + size,
            reserved_range=None if ends is None else (ends[0] + size, ends[1] + size),
            terms={**self.terms, term: self.terms[term] + size},
        )

    def as_json(self) -> dict[str, object]:
        return {
            "allocated_bytes": self.allocated_bytes,
            "reserved_bytes": self.reserved_bytes,
            "reserved_range": None if self.reserved_range is None else list(self.reserved_range),
            "host_bytes": self.host_bytes,
            "terms": dict(self.terms),
            "method": self.method,
        }


def on_device(device: Device, peak: Peak) -> Peak:
    """The peak on a device: a CPU has neither a driver's context nor an allocator that keeps memory for reuse."""
    if device.kind == "cuda":
        return peak
    terms = {**peak.terms, "cuda_context": 0}
    return replace(peak, reserved_bytes=peak.allocated_bytes, reserved_range=None, terms=terms)
