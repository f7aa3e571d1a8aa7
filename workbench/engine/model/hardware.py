"""The machine as a run's journal records it, and the device as PyTorch sees it."""

import contextlib
import ctypes
import gc
import platform
from importlib import metadata
from typing import Any

import psutil

from workbench.engine.client.protocol import DeviceFacts
from workbench.machine.gpu import gpus_now

_REPORTED = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
_WHERE_INSTALLED = ("liger-kernel", "kernels")


def hardware_facts() -> dict[str, Any]:
    """GPUs (through NVML), cores and memory of this machine; bytes are bytes. Imports no torch."""
    gpus = [{"name": gpu.name, "total_bytes": gpu.total_bytes} for gpu in gpus_now()]
    return {"gpus": gpus, "cpu_cores": psutil.cpu_count(), "ram_bytes": psutil.virtual_memory().total}


def library_versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in _REPORTED}}
    for name in _WHERE_INSTALLED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def device_facts() -> DeviceFacts:
    """The GPU that is computed on, or the processor of a machine without one. Imports torch."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return DeviceFacts(kind="cuda", name=properties.name, total_bytes=properties.total_memory)
    name = platform.processor() or platform.machine()
    return DeviceFacts(kind="cpu", name=name, total_bytes=psutil.virtual_memory().total)


def free_cached_memory() -> None:
    """Give back what nothing refers to any more: to the driver, and to the system."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps freed memory in its arenas: after some models a gigabyte that nobody uses.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def allocated_and_reserved() -> tuple[int, int]:
    """Bytes PyTorch's allocator has handed out, and holds, on the GPU; zeros without one. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
