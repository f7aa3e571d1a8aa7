"""The hardware now: GPUs through NVML, processor and memory of the host through psutil. No torch.

Any NVML query may fail, by driver, by permission or by kind of GPU (MIG, unified memory, passed through): then that
field is None, and the rest goes on. Sizes are bytes.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU. Its name and its share of the memory are None where they are not told."""

    pid: int
    name: str | None
    bytes: int | None


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment. ``index`` is NVML's, which nvidia-smi shows. ``utilization`` is in percent.

    ``compute_capability`` is CUDA's: (8, 0) for an A100.
    """

    index: int
    name: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    utilization: float | None = None
    temperature: float | None = None
    power_watts: float | None = None
    power_limit: float | None = None
    compute_capability: tuple[int, int] | None = None
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class HostSample:
    """The host at one moment. In a container with a memory limit, total and used are the container's.

    ``used_bytes`` is what cannot be had: total less available. ``process_bytes`` is the resident memory of the process
    that was asked about.
    """

    cpu_percent: float
    total_bytes: int
    used_bytes: int
    available_bytes: int
    process_bytes: int | None = None


def gpus_now() -> list[GpuSample]:
    """Every visible GPU, read once. Takes up to a second."""
    with GpuSampler() as sampler:
        return sampler.sample()


def first_gpu() -> GpuSample | None:
    """The GPU that is used where none was chosen, read once; None where there is none."""
    return next(iter(gpus_now()), None)


def hardware_now() -> tuple[list[GpuSample], HostSample]:
    """GPUs and host, read once."""
    with HardwareSampler() as sampler:
        return sampler.sample()


def occupants(gpu: GpuSample) -> tuple[GpuProcess, ...]:
    """Who computes on a GPU besides this home's engine and its runs, those with the most memory first."""
    others = (process for process in gpu.processes if not _is_ours(process.pid))
    return tuple(sorted(others, key=lambda process: process.bytes or 0, reverse=True))


def _is_ours(pid: int) -> bool:
    """A process of the workbench that belongs to this user: it makes room for a run by itself."""
    try:
        process = psutil.Process(pid)
        return process.uids().real == os.getuid() and "workbench.engine.daemon.server" in process.cmdline()
    except psutil.Error:
        return False


class GpuSampler:
    """Reads the GPUs that CUDA may use here, in the order of ``CUDA_VISIBLE_DEVICES`` where that is set.

    Opening takes NVML's start, up to a second on some machines; a sample takes some milliseconds. ``reason`` says why
    there is no GPU, and is empty where there is one; ``driver`` is the driver's version. It must be closed, or used as
    a context manager: NVML counts those that opened it. Who reads the GPUs once calls :func:`gpus_now`.

    Args:
        library: the ``pynvml`` module, or what stands for it.
    """

    def __init__(self, library: Any = None) -> None:
        self.reason = ""
        self.driver: str | None = None
        self._handles: list[tuple[int, Any]] = []
        self._is_open = False
        try:
            self._nvml = library or _load_pynvml()
        except ImportError:
            self._nvml = None
            self.reason = "nvidia-ml-py is not installed"
            return
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self.reason = f"NVML does not start: {error}"
            return
        self._is_open = True
        self.driver = self._ask("nvmlSystemGetDriverVersion")
        count = self._ask("nvmlDeviceGetCount") or 0
        handles = [(index, self._ask("nvmlDeviceGetHandleByIndex", index)) for index in range(count)]
        found = [(index, handle) for index, handle in handles if handle is not None]
        self._handles = self._visible(found)
        if not found:
            self.reason = "the driver finds no GPU"
        elif not self._handles:
            self.reason = "CUDA_VISIBLE_DEVICES hides every GPU"

    def sample(self) -> list[GpuSample]:
        """Every visible GPU now; empty where there is none."""
        return [self._sample(index, handle) for index, handle in self._handles]

    def close(self) -> None:
        """Let go of NVML. Sampling ends with that."""
        self._handles = []
        if self._is_open:
            self._is_open = False
            self._ask("nvmlShutdown")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample(self, index: int, handle: Any) -> GpuSample:
        memory = self._memory(handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        return GpuSample(
            index=index,
            name=self._ask("nvmlDeviceGetName", handle) or "GPU",
            total_bytes=getattr(memory, "total", None),
            used_bytes=getattr(memory, "used", None),
            free_bytes=getattr(memory, "free", None),
            utilization=getattr(rates, "gpu", None),
            temperature=self._ask("nvmlDeviceGetTemperature", handle, 0),
            power_watts=_thousandth(self._ask("nvmlDeviceGetPowerUsage", handle)),
            power_limit=_thousandth(self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            compute_capability=self._ask("nvmlDeviceGetCudaComputeCapability", handle),
            processes=tuple(self._processes(handle)),
        )

    def _memory(self, handle: Any) -> Any:
        """Version 2 does not count the driver's own reserve as used; old drivers know only version 1."""
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        newer = self._ask("nvmlDeviceGetMemoryInfo", handle, version) if version else None
        return newer or self._ask("nvmlDeviceGetMemoryInfo", handle)

    def _processes(self, handle: Any) -> Iterator[GpuProcess]:
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses", handle) or ():
            name = self._ask("nvmlSystemGetProcessName", process.pid)
            if not name:
                with suppress(psutil.Error):
                    name = psutil.Process(process.pid).name()
            yield GpuProcess(process.pid, Path(name).name if name else None, process.usedGpuMemory)

    def _visible(self, handles: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """What CUDA may use: the list is cut at its first unknown entry, as CUDA does. MIG names are not resolved."""
        names = os.environ.get("CUDA_VISIBLE_DEVICES")
        if names is None or "MIG-" in names:
            return handles
        chosen = []
        for name in (part.strip() for part in names.split(",")):
            match = next((pair for pair in handles if self._is_named(pair, name)), None)
            if match is None:
                break
            chosen.append(match)
        return chosen

    def _is_named(self, pair: tuple[int, Any], name: str) -> bool:
        index, handle = pair
        if name.startswith("GPU-"):
            return str(self._ask("nvmlDeviceGetUUID", handle)).startswith(name)
        return name == str(index)

    def _ask(self, query: str, *arguments: Any) -> Any:
        """The answer of a query; None where the library, the driver or the GPU does not give one."""
        try:
            answer = getattr(self._nvml, query)(*arguments)
        except (self._nvml.NVMLError, AttributeError, UnicodeDecodeError):
            return None
        return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def computes_bfloat16(gpu: GpuSample | None) -> bool:
    """Whether ``gpu``, or without one this machine's processor, multiplies bfloat16 in hardware.

    GPUs do from compute capability 8.0 on (Ampere); one that does not tell its own is taken to be as new. Processors of
    the x86 kind do with AVX512-BF16 or AMX.
    """
    if gpu is not None:
        return gpu.compute_capability is None or gpu.compute_capability >= (8, 0)
    return _processor_computes_bfloat16()


@cache
def _processor_computes_bfloat16() -> bool:
    with suppress(OSError):
        flags = _CPUINFO.read_text(encoding="ascii", errors="replace")
        return bool(re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", flags, re.MULTILINE))
    return False


class HostSampler:
    """Reads processor and memory of the host. The load is that since the sample before."""

    def __init__(self) -> None:
        psutil.cpu_percent()

    def sample(self, pid: int | None = None) -> HostSample:
        """The host now, with the resident memory of the process ``pid``."""
        memory = psutil.virtual_memory()
        total, available = memory.total, memory.available
        if limit := _container_memory():
            total = min(total, limit[0])
            available = min(available, limit[0] - limit[1])
        resident = None
        if pid:
            with suppress(psutil.Error):
                resident = psutil.Process(pid).memory_info().rss
        return HostSample(psutil.cpu_percent(), total, total - available, available, resident)


class HardwareSampler:
    """GPUs and host in one reading. To be closed, as :class:`GpuSampler`; once: :func:`hardware_now`."""

    def __init__(self) -> None:
        self.gpus = GpuSampler()
        self.host = HostSampler()

    def sample(self, pid: int | None = None) -> tuple[list[GpuSample], HostSample]:
        return self.gpus.sample(), self.host.sample(pid)

    def close(self) -> None:
        """Let go of NVML."""
        self.gpus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _load_pynvml() -> Any:
    import pynvml

    return pynvml


def _thousandth(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _container_memory(folder: Path = _CGROUP) -> tuple[int, int] | None:
    """Limit and use of this container's memory (cgroup v2); None without a limit.

    Pages of files count as used there, though they are given back on demand, so inactive ones are taken off.
    """
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    inactive = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return limit, max(0, used - inactive)
