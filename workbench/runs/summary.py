"""A run in a few figures, as plain data: what histories list. :mod:`workbench.runs.replay` fills it in."""

from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from workbench.runs.events import Number

RunState = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]


@dataclass
class RunSummary:
    """What the journal says of a run so far.

    Attributes:
        perplexities: (step, held-out perplexity) of the evaluations that still hold, the base's own at step 0.
        predicted_peak: ``allocated_bytes``, ``reserved_bytes``, ``terms``, ``method`` and the ``length`` they are for.
        is_unpriced: its steps were compiled or computed by fused kernels, and the prediction is not of those.
        measured_peak: ``allocated``, ``reserved``, ``resting`` and ``nvml`` in bytes; None without a GPU.
        writer: process id and start time of the process that writes the journal.
        is_rough: the middle of a long journal was not read yet. What is here is true, but there may be more: an
            evaluation, a higher peak; and the state of a run without an end is known only where ``writer`` is.
    """

    id: str
    state: RunState = "new"
    model: str = ""
    started: float | None = None
    ended: float | None = None
    step: int = 0
    max_steps: int = 0
    phase: str = ""
    loss: Number = None
    perplexities: list[tuple[int, Number]] = field(default_factory=list)
    tokens: int = 0
    peak_vram: int = 0
    eta_seconds: float | None = None
    tokens_per_second: float | None = None
    reason: str = ""
    cure: str = ""
    predicted_peak: dict[str, Any] | None = None
    is_unpriced: bool = False
    measured_peak: dict[str, Any] | None = None
    writer: tuple[int, float] | None = None
    is_rough: bool = False

    @property
    def perplexity(self) -> dict[str, Number]:
        """``base`` before the first step, ``tuned`` as last evaluated; each where there is one."""
        found: dict[str, Number] = {}
        for step, perplexity in self.perplexities:
            # Before the first step the adapter changes nothing.
            found["tuned" if step else "base"] = perplexity
        return found

    @property
    def is_open(self) -> bool:
        """Whether it is unknown if the run is still live: it has no end, and its writer was not read."""
        return self.is_rough and self.state == "running" and self.writer is None

    @property
    def can_be_resumed(self) -> bool:
        """Whether it ended early with something left of it; a discarded run could only start again."""
        return self.state in ("interrupted", "stopped", "failed") and self.reason != "discarded"

    @property
    def predicted_allocated(self) -> int | None:
        """Predicted bytes that PyTorch allocates at the peak."""
        return (self.predicted_peak or {}).get("allocated_bytes")

    @property
    def peak_error(self) -> float | None:
        """(predicted − measured) / measured of the allocated peak; None unless the run has both, of the same steps."""
        predicted, measured = self.predicted_allocated, (self.measured_peak or {}).get("allocated")
        return predicted / measured - 1 if predicted and measured and not self.is_unpriced else None

    def settle(self) -> None:
        """Mark a run as interrupted whose writer is gone and that has no end."""
        if self.state == "running" and not self.is_open and not _is_alive(self.writer):
            self.state = "interrupted"
            self.reason = "its training process ended"


def _is_alive(writer: tuple[int, float] | None) -> bool:
    """Whether the very process lives: a process id is used again after a while, its start time is not."""
    if not writer or not writer[0]:
        return False
    try:
        process = psutil.Process(writer[0])
        # A zombie is dead; only its parent, perhaps this very terminal, has not asked for its exit code.
        return abs(process.create_time() - writer[1]) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
