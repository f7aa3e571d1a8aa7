"""The predicted peaks of device memory in a run: of a training step, with its terms, of loading and of evaluation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from workbench.machine.device import Device

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
REPLY_TOKENS = 64
"""Most tokens of a reply that is sampled between steps (``workbench.engine.generation.samples``)."""

Phase = Literal["training", "loading", "evaluation"]
"""A part of a run with a peak of its own. Evaluation computes held-out losses and samples replies."""


@dataclass(frozen=True)
class PhasePeak:
    """The peak of one phase of a run, in bytes, as PyTorch's allocator counts them."""

    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True)
class Peak:
    """The predicted peak of a training step, with those of the other phases of its run.

    Attributes:
        allocated_bytes: as ``torch.cuda.max_memory_allocated`` counts.
        reserved_bytes: as ``torch.cuda.max_memory_reserved`` counts, with what PyTorch's allocator keeps for reuse.
        terms: bytes by name; all but ``cuda_context`` add up to ``allocated_bytes``.
        moment: the part of the step in which the peak occurs.
        host_bytes: pinned host memory that checkpoints take beside it.
        reserved_range: the least and the most reserved memory, where steps of varying lengths were replayed.
        method: ``trace`` (a traced step, accurate to 2 %) or ``closed-form`` (≈; see ``docs/accuracy.md``).
        others: the peaks of loading and of evaluation.
    """

    allocated_bytes: int
    reserved_bytes: int
    terms: Mapping[str, int]
    moment: Moment
    method: Method
    reserved_range: tuple[int, int] | None = None
    host_bytes: int = 0
    others: Mapping[Phase, PhasePeak] = field(default_factory=dict)

    @property
    def phases(self) -> Mapping[Phase, PhasePeak]:
        """The peak of each phase, training first."""
        return {"training": PhasePeak(self.allocated_bytes, self.reserved_bytes), **self.others}

    @property
    def highest_phase(self) -> Phase:
        """The phase that needs the most memory."""
        phases = self.phases
        return max(phases, key=lambda phase: phases[phase].reserved_bytes)

    @property
    def device_bytes(self) -> int:
        """What a device must have free: reserved memory in the phase that needs the most, and the CUDA context."""
        return max(phase.reserved_bytes for phase in self.phases.values()) + self.terms["cuda_context"]

    @property
    def least_bytes(self) -> int:
        """What a device must have even if the allocator keeps nothing for reuse."""
        return max(phase.allocated_bytes for phase in self.phases.values()) + self.terms["cuda_context"]

    def with_more(self, term: str, size: int) -> "Peak":
        """The same peak with ``size`` bytes more in one of its terms, held from the first step to the last."""
        ends = self.reserved_range
        others = {
            phase: peak if phase == "loading" else PhasePeak(peak.allocated_bytes + size, peak.reserved_bytes + size)
            for phase, peak in self.others.items()
        }
        return replace(
            self,
            allocated_bytes=self.allocated_bytes + size,
            reserved_bytes=self.reserved_bytes + size,
            reserved_range=None if ends is None else (ends[0] + size, ends[1] + size),
            terms={**self.terms, term: self.terms[term] + size},
            others=others,
        )

    def as_json(self) -> dict[str, object]:
        return {
            "allocated_bytes": self.allocated_bytes,
            "reserved_bytes": self.reserved_bytes,
            "reserved_range": None if self.reserved_range is None else list(self.reserved_range),
            "host_bytes": self.host_bytes,
            "terms": dict(self.terms),
            "method": self.method,
            "phases": {phase: asdict(peak) for phase, peak in self.phases.items()},
        }


def on_device(device: Device, peak: Peak) -> Peak:
    """The peak on a device: a CPU has neither a driver's context nor an allocator that keeps memory for reuse."""
    if device.kind == "cuda":
        return peak
    terms = {**peak.terms, "cuda_context": 0}
    others = {phase: replace(other, reserved_bytes=other.allocated_bytes) for phase, other in peak.others.items()}
    return replace(peak, reserved_bytes=peak.allocated_bytes, reserved_range=None, terms=terms, others=others)
