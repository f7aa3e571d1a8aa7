"""Imports the heavy libraries (torch, transformers, PEFT, TRL, bitsandbytes) in one thread at a time.

Their imports are circular in places: two threads that import them for the first time at once can see partly initialized
modules.
"""

import threading
from contextlib import suppress
from importlib import import_module

_lock = threading.Lock()


def import_libraries() -> None:
    """Import what loading, training and module trees need. Slow the first time, immediate afterwards."""
    with _lock:
        for name in ("torch", "transformers", "bitsandbytes", "peft", "trl"):
            # The code that needs a library reports why it cannot be imported.
            with suppress(Exception):
                import_module(name)


def restore_default_dtype() -> str:
    """Set PyTorch's default dtype back to float32; returns the dtype it had, empty if it was float32.

    Losses and optimizer states are created in the default dtype, so model code that leaves another one behind would
    change every later run of this process.
    """
    import torch

    dtype = torch.get_default_dtype()
    if dtype is torch.float32:
        return ""
    torch.set_default_dtype(torch.float32)
    return str(dtype).removeprefix("torch.")
