"""Describes the machine, the device and the library versions, and releases cached memory."""

import contextlib
import ctypes
import gc
import platform
from importlib import metadata

import psutil

from workbench.engine.client.protocol import DeviceFacts
from workbench.machine.gpu import gpus_now

_REPORTED = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
_OPTIONAL = ("liger-kernel", "kernels")


def hardware_facts() -> dict[str, object]:
    """GPUs (from NVML), CPU cores and memory of this machine; sizes in bytes. Imports no torch."""
    gpus = [{"name": gpu.name, "total_bytes": gpu.total_bytes} for gpu in gpus_now()]
    return {"gpus": gpus, "cpu_cores": psutil.cpu_count(), "ram_bytes": psutil.virtual_memory().total}


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in _REPORTED}}
    for name in _OPTIONAL:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def device_facts() -> DeviceFacts:
    """The GPU that PyTorch uses, or the CPU of a machine without one. Imports torch."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return DeviceFacts(kind="cuda", name=properties.name, total_bytes=properties.total_memory)
    name = platform.processor() or platform.machine()
    return DeviceFacts(kind="cpu", name=name, total_bytes=psutil.virtual_memory().total)


def compute_capability() -> int | None:
    """CUDA's major version of the GPU that PyTorch uses; None without one. Imports torch."""
    import torch

    return int(torch.cuda.get_device_capability()[0]) if torch.cuda.is_available() else None


def free_cached_memory() -> None:
    """Return unused memory to the GPU driver and to the operating system."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        # Pinned memory of checkpoints that lay on the host.
        torch.accelerator.empty_host_cache()
    # glibc keeps freed memory in its arenas: after a few models that is an unused gigabyte.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def allocated_and_reserved() -> tuple[int, int]:
    """Bytes that PyTorch's allocator has allocated and reserved on the GPU; zeros without one. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
