"""The heavy libraries, imported by one thread at a time.

Two threads that import them for the first time together can meet each other's half-made modules: their imports are
circular in places.
"""

import threading
from contextlib import suppress
from importlib import import_module

_lock = threading.Lock()


def import_libraries() -> None:
    """Import what loading, training and trees need; at once when that has been done. Slow the first time."""
    with _lock:
        for name in ("torch", "transformers", "bitsandbytes", "peft", "trl"):
            # One that cannot be imported is told of by the first that needs it.
            with suppress(Exception):
                import_module(name)


def restore_default_dtype() -> str:
    """Set PyTorch's default number type back to float32; returns what it was instead, empty where it was right.

    Losses and optimizer state are made in it, so a model's own code that leaves another one would change every run of
    this process.
    """
    import torch

    found = torch.get_default_dtype()
    if found is torch.float32:
        return ""
    torch.set_default_dtype(torch.float32)
    return str(found).removeprefix("torch.")
