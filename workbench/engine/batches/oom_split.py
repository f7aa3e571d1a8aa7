"""Work on a batch where the whole of it may not fit in memory."""

import re
from collections.abc import Callable
from typing import TypeVar

from workbench.engine.model.hardware import free_cached_memory

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device, or the host, had no memory left to give."""
    import torch

    # PyTorch's CPU allocator, cuBLAS and bitsandbytes tell it in words only.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))
    )


_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.I)
