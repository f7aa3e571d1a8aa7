"""Where a training step makes the host wait for the GPU: PyTorch's own report of every synchronization."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from bench.gpu.part import Work
from bench.gpu.parts.runs import trained

# The first step measures what the model does to its logits, and compiles kernels.
_FIRST = 2


def measure(work: Work) -> None:
    for name, changes in {
        "nf4": {"quantization.method": "nf4"},
        "16-bit, checkpoints": {"quantization.method": "none", "training.gradient_checkpointing": True},
    }.items():
        inside, batches = _waits(work, changes)
        work.note(**{name: {"inside_micro_batches": dict(inside), "micro_batches": batches}})
        work.check(f"{name}: no micro-batch waits", not inside, dict(inside))
    if work.device == "cpu":
        work.note(not_seen="without a GPU nothing waits: only the run itself has run")
    work.verdict()


def _waits(work: Work, changes: dict[str, Any]) -> tuple[Counter[str], int]:
    """By place in the source, how often micro-batches waited; and how many micro-batches there were."""
    import torch

    from workbench.engine.training.trainers.splitting import SplittingTrainer

    found: Counter[str] = Counter()
    compute, batches = SplittingTrainer.training_step, 0

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal batches
        if self.state.global_step < _FIRST or work.device == "cpu":
            return compute(self, *arguments, **options)
        batches += 1
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return compute(self, *arguments, **options)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                found.update(
                    f"{Path(one.filename).parent.name}/{Path(one.filename).name}:{one.lineno}"
                    for one in told
                    if "synchroniz" in str(one.message)
                )

    with mock.patch.object(SplittingTrainer, "training_step", watched):
        trained(work, {"training.max_steps": 6, "training.gradient_accumulation_steps": 2, **changes})
    return found, batches
