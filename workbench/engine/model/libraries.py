"""Imports the heavy libraries (torch, transformers, PEFT, TRL, bitsandbytes) in one thread at a time, and quickly.

Their imports are circular in places: two threads that import them for the first time at once can see partly initialized
modules.
"""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any

_lock = threading.Lock()


def import_libraries() -> None:
    """Import what loading, training and module trees need. Slow the first time, immediate afterwards.

    CUDA then numbers the GPUs as NVML and nvidia-smi do, unless ``CUDA_DEVICE_ORDER`` says otherwise: by default it
    puts the fastest first, and on a machine of different GPUs the free memory would be read from another one.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with _lock:
        _import_once()


@cache
def _import_once() -> None:
    with _collector_paused():
        # The code that needs a library reports why it cannot be imported.
        with suppress(Exception), _compiling_later():
            import_module("bitsandbytes")
        for name in ("torch", "transformers", "peft", "trl"):
            with suppress(Exception):
                import_module(name)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Collect no garbage within this block, nor later among what exists at its end.

    Modules stay for as long as the process, and each collection would take 0.3 s for these libraries' 400,000 objects.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _compiling_later() -> Iterator[None]:
    """Compile at its first call what is given to ``torch.compile`` within this block.

    bitsandbytes gives it two functions of its slow path when it is imported, which imports PyTorch's compiler. That
    takes a second of the start of each engine, and hardly any engine calls either function.
    """
    import torch

    compile_now = torch.compile

    def compile_later(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        compiled: list[Callable[..., Any]] = []

        def call(*arguments: Any) -> Any:
            if not compiled:
                compiled.append(compile_now(function, **options))
            return compiled[0](*arguments)

        return call

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


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
