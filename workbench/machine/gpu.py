"""Samples GPUs through NVML. Does not import torch.

Any NVML query may fail, depending on driver, permissions or kind of GPU (MIG, unified memory, passthrough); then that
field is None. Sizes are in bytes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeVar

import psutil

_OURS = {"workbench.engine.daemon.server", "workbench.engine.distributed.worker"}

T = TypeVar("T")
Handle = object
"""NVML's reference to a GPU."""


class _Memory(Protocol):
    total: int
    used: int
    free: int


class _Rates(Protocol):
    gpu: int


class _Process(Protocol):
    pid: int
    usedGpuMemory: int | None  # noqa: N815


class Nvml(Protocol):
    """The part of ``pynvml`` that is used here."""

    NVMLError: type[Exception]
    nvmlMemory_v2: object  # noqa: N815

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlSystemGetDriverVersion(self) -> str | bytes: ...  # noqa: N802
    def nvmlSystemGetProcessName(self, pid: int) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Handle) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: Handle) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: object = None) -> _Memory: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Handle) -> _Rates: ...  # noqa: N802
    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int) -> float: ...  # noqa: N802
    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int: ...  # noqa: N802
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Handle) -> int: ...  # noqa: N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: Handle) -> tuple[int, int]: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> Sequence[_Process]: ...  # noqa: N802


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU. Name and memory are None if unknown.

    ``home`` is the folder of the workbench whose engine or run it is; None for any other program.
    """

    pid: int
    name: str | None
    bytes: int | None
    home: str | None = None


@dataclass(frozen=True)
class GpuSample:
    """The state of a GPU. ``index`` is NVML's, as in nvidia-smi; ``utilization`` is in percent.

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


def gpus_now() -> list[GpuSample]:
    """Sample every visible GPU once. Takes up to a second."""
    with GpuSampler() as sampler:
        return sampler.sample()


def first_gpu() -> GpuSample | None:
    """Sample the default GPU once; None without a GPU."""
    return next(iter(gpus_now()), None)


def other_processes(gpu: GpuSample) -> tuple[GpuProcess, ...]:
    """The processes on a GPU that are not this user's workbench's, those with the most memory first."""
    others = (process for process in gpu.processes if process.home is None)
    return tuple(sorted(others, key=lambda process: process.bytes or 0, reverse=True))


def _home_of(pid: int) -> str | None:
    """The home of an engine of this user, or of a process that trains for one; None for any other process."""
    try:
        process = psutil.Process(pid)
        line = process.cmdline() if process.uids().real == os.getuid() else []
    except psutil.Error:
        return None
    if not _OURS.intersection(line) or "--home" not in line[:-1]:
        return None
    return line[line.index("--home") + 1]


class GpuSampler:
    """Samples the GPUs that CUDA may use, in the order of ``CUDA_VISIBLE_DEVICES`` if that is set.

    Opening initializes NVML, which takes up to a second on some machines; a sample takes some milliseconds. It must be
    closed or used as a context manager, as NVML counts its users. To sample once, call :func:`gpus_now`.

    Attributes:
        reason: why there is no GPU; empty if there is one. driver: the driver's version.

    Args:
        library: the ``pynvml`` module, or a replacement in tests.
    """

    def __init__(self, library: Nvml | None = None) -> None:
        self.reason = ""
        self.driver: str | None = None
        self._handles: list[tuple[int, Handle]] = []
        self._is_open = False
        try:
            self._nvml = nvml = library or _load_pynvml()
        except ImportError:
            self.reason = "nvidia-ml-py is not installed"
            return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self.reason = f"NVML does not start: {error}"
            return
        self._is_open = True
        self.driver = _text(self._query(nvml.nvmlSystemGetDriverVersion))
        count = self._query(nvml.nvmlDeviceGetCount) or 0
        handles = [(index, self._query(partial(nvml.nvmlDeviceGetHandleByIndex, index))) for index in range(count)]
        usable = [(index, handle) for index, handle in handles if handle is not None]
        self._handles = self._visible(usable)
        if not usable:
            self.reason = "the driver finds no GPU"
        elif not self._handles:
            self.reason = "CUDA_VISIBLE_DEVICES hides every GPU"

    def sample(self) -> list[GpuSample]:
        """Sample every visible GPU; empty without one."""
        return [self._sample(index, handle) for index, handle in self._handles]

    def close(self) -> None:
        """Release NVML; later samples are empty."""
        self._handles = []
        if self._is_open:
            self._is_open = False
            self._query(self._nvml.nvmlShutdown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample(self, index: int, handle: Handle) -> GpuSample:
        nvml = self._nvml
        memory = self._memory(handle)
        rates = self._query(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        return GpuSample(
            index=index,
            name=_text(self._query(lambda: nvml.nvmlDeviceGetName(handle))) or "GPU",
            total_bytes=memory.total if memory else None,
            used_bytes=memory.used if memory else None,
            free_bytes=memory.free if memory else None,
            utilization=rates.gpu if rates else None,
            temperature=self._query(lambda: nvml.nvmlDeviceGetTemperature(handle, 0)),
            power_watts=_thousandth(self._query(lambda: nvml.nvmlDeviceGetPowerUsage(handle))),
            power_limit=_thousandth(self._query(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))),
            compute_capability=self._query(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle)),
            processes=tuple(self._processes(handle)),
        )

    def _memory(self, handle: Handle) -> _Memory | None:
        """Version 2 does not count the driver's reserve as used; old drivers only have version 1."""
        newer = self._query(lambda: self._nvml.nvmlDeviceGetMemoryInfo(handle, self._nvml.nvmlMemory_v2))
        return newer or self._query(lambda: self._nvml.nvmlDeviceGetMemoryInfo(handle))

    def _processes(self, handle: Handle) -> Iterator[GpuProcess]:
        for process in self._query(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ():
            name = self._process_name(process.pid)
            shown = Path(name).name if name else None
            yield GpuProcess(process.pid, shown, process.usedGpuMemory, _home_of(process.pid))

    def _process_name(self, pid: int) -> str | None:
        if name := _text(self._query(lambda: self._nvml.nvmlSystemGetProcessName(pid))):
            return name
        with suppress(psutil.Error):
            return psutil.Process(pid).name()
        return None

    def _visible(self, handles: list[tuple[int, Handle]]) -> list[tuple[int, Handle]]:
        """The GPUs that CUDA may use: like CUDA, stops at the first unknown entry. MIG names are not resolved."""
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

    def _is_named(self, pair: tuple[int, Handle], name: str) -> bool:
        index, handle = pair
        if name.startswith("GPU-"):
            return str(_text(self._query(lambda: self._nvml.nvmlDeviceGetUUID(handle)))).startswith(name)
        return name == str(index)

    def _query(self, query: Callable[[], T]) -> T | None:
        """The result of an NVML query; None if library, driver or GPU do not support it."""
        try:
            return query()
        except (self._nvml.NVMLError, AttributeError, UnicodeDecodeError):
            return None


def _text(answer: str | bytes | None) -> str | None:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _load_pynvml() -> Nvml:
    import pynvml

    library: Nvml = pynvml
    return library


def _thousandth(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
