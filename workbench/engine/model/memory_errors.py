"""Recognizes errors that mean that the device or the host is out of memory."""

import re


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or the host is out of memory."""
    import torch

    # PyTorch's CPU allocator, cuBLAS and bitsandbytes report it only in the message.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))
    )


_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED", re.I)
