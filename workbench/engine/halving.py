"""Work on a batch where the whole of it may not fit in memory."""

from collections.abc import Callable
from typing import TypeVar

from workbench.engine.hardware import free_cached_memory
from workbench.engine.memory import is_out_of_memory

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_halves(work: Callable[[list[Given]], list[Made]], batch: list[Given]) -> list[Made]:
    """What ``work`` makes of each of the batch, in order; in halves, and halves of them, where memory ends.

    Raises:
        Exception: whatever ``work`` raises, and what it raises for one alone when even that does not fit.
    """
    try:
        return work(batch)
    except Exception as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    free_cached_memory()
    half = len(batch) // 2
    return in_halves(work, batch[:half]) + in_halves(work, batch[half:])
