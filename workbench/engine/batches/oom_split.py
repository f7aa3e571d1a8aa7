"""Runs work on a batch, and splits the batch in halves when it does not fit in memory."""

from collections.abc import Callable
from typing import TypeVar

from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.memory_errors import is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def split_on_oom(work: Callable[[list[Item]], list[Result]], batch: list[Item]) -> list[Result]:
    """Call ``work`` on a batch, or on halves of it (and halves of those) where memory runs out; results in order.

    Raises:
        Exception: whatever ``work`` raises, out of memory included if even a single item does not fit.
    """
    try:
        return work(batch)
    except Exception as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    free_cached_memory()
    half = len(batch) // 2
    return split_on_oom(work, batch[:half]) + split_on_oom(work, batch[half:])
