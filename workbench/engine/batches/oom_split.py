"""Runs work on a batch, and splits the batch in halves when it does not fit in memory."""

import re
from collections.abc import Callable
from typing import TypeVar

from workbench.engine.model.hardware import free_cached_memory

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the host is out of memory."""
    import torch

    # PyTorch's CPU allocator, cuBLAS and bitsandbytes report it only in the message.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))
    )


_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.I)
