"""A run on a GPU whose memory really ends. On a CPU, running out of memory is raised by hand once."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.gpu.part import Work
from bench.gpu.parts.runs import largest_difference, trained

_CHANGES = {"training.per_device_train_batch_size": 16, "training.max_steps": 5}


def measure(work: Work) -> None:
    plain = trained(work, _CHANGES)
    work.note(unlimited=plain.told)
    if work.device == "cpu":
        from tests.engine.runs_of_tiny import out_of_memory_once

        with out_of_memory_once():
            split = trained(work, _CHANGES)
        work.note(not_seen="a real limit: out of memory was raised by hand, in the second step")
    else:
        resting, peak = plain.measured["resting"], plain.measured["reserved"]
        limit = resting + int(0.6 * (peak - resting))
        with _at_most(limit):
            split = trained(work, _CHANGES)
        work.note(limit=limit)
        work.check("the limit was kept", split.measured["reserved"] <= limit, split.measured)
    work.note(limited=split.told)
    work.check("micro-batches were split", split.warnings("out_of_memory"), split.told["warnings"])
    differs = largest_difference(split.losses, plain.losses)
    work.note(losses_differ_by=differs)
    work.check("the same losses to rounding", differs < 0.02, differs)
    if work.device == "cuda":
        with _at_most(resting + (64 << 20)):
            nothing = trained(work, {**_CHANGES, "data.max_length": 2048}, must_finish=False)
        work.note(nothing_fits=nothing.error)
        work.check("what does not fit is told", "memory" in nothing.error, nothing.error)
        again = trained(work, _CHANGES)
        differs = largest_difference(again.losses, plain.losses)
        work.check("the next run is not disturbed", differs < 0.02, differs)
    work.verdict()


@contextmanager
def _at_most(limit: int) -> Iterator[None]:
    """Within, PyTorch's allocator of this process gets no more than ``limit`` bytes."""
    import torch

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        limit / torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
