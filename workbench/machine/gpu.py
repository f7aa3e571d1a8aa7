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

from workbench.machine.host import host_memory

# NVML_CLOCK_SM and NVML_ERROR_NOT_SUPPORTED of nvml.h.
_SM_CLOCK = 1
_NOT_SUPPORTED = 3
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
    def nvmlDeviceGetClockInfo(self, handle: Handle, kind: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetMaxClockInfo(self, handle: Handle, kind: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, handle: Handle) -> Sequence[int]: ...  # noqa: N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle: ...  # noqa: N802


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU. Name, memory and user are None if unknown.

    ``home`` is the folder of the workbench whose engine or run it is; None for any other program.
    """

    pid: int
    name: str | None
    bytes: int | None
    home: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class GpuSample:
    """The state of a GPU, or of a MIG instance of one.

    Attributes:
        index: NVML's, as in nvidia-smi. An instance has that of its GPU.
        utilization: in percent.
        clock_mhz, max_clock_mhz: of the multiprocessors.
        compute_capability: CUDA's: (8, 0) for an A100.
        mig_instance: the number of the MIG instance; None for a whole GPU. mig_uuid: its name for CUDA.
        has_unified_memory: whether it has no memory of its own; the sizes are then those of the host.
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
    clock_mhz: int | None = None
    max_clock_mhz: int | None = None
    mig_instance: int | None = None
    mig_uuid: str | None = None
    has_unified_memory: bool = False

    @property
    def device(self) -> int | str:
        """What CUDA knows it by: its number, or the UUID of the MIG instance."""
        return self.index if self.mig_uuid is None else self.mig_uuid

    @property
    def label(self) -> str:
        """Its number, with that of the MIG instance: ``0`` or ``0:2``."""
        return str(self.index) if self.mig_instance is None else f"{self.index}:{self.mig_instance}"


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


def _user_of(pid: int) -> str | None:
    with suppress(psutil.Error, KeyError):
        return psutil.Process(pid).username()
    return None


@dataclass(frozen=True)
class _Device:
    """A GPU, or a MIG instance of the GPU ``whole``."""

    index: int
    handle: Handle
    whole: Handle
    instance: int | None = None


@dataclass
class _Sizes:
    """The host's memory in the place of a GPU's own."""

    total: int
    used: int
    free: int


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
        self._devices: list[_Device] = []
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
        usable = [
            device for index, handle in handles if handle is not None for device in self._instances(index, handle)
        ]
        self._devices = self._visible(usable)
        if not usable:
            self.reason = "the driver finds no GPU"
        elif not self._devices:
            self.reason = "CUDA_VISIBLE_DEVICES hides every GPU"

    def sample(self) -> list[GpuSample]:
        """Sample every visible GPU; empty without one."""
        return [self._sample(device) for device in self._devices]

    def close(self) -> None:
        """Release NVML; later samples are empty."""
        self._devices = []
        if self._is_open:
            self._is_open = False
            self._query(self._nvml.nvmlShutdown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _instances(self, index: int, handle: Handle) -> list[_Device]:
        """A GPU, or its MIG instances if it is divided: CUDA then computes on one of these."""
        nvml = self._nvml
        mode = self._query(lambda: nvml.nvmlDeviceGetMigMode(handle))
        count = (self._query(lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0) if mode and mode[0] else 0
        found = [self._query(partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, n)) for n in range(count)]
        parts = [_Device(index, part, handle, n) for n, part in enumerate(found) if part is not None]
        return parts or [_Device(index, handle, handle)]

    def _sample(self, device: _Device) -> GpuSample:
        nvml, handle, whole = self._nvml, device.handle, device.whole
        memory = self._memory(handle)
        is_unified = memory is None and self._has_no_memory(handle)
        if is_unified:
            host = host_memory()
            memory = _Sizes(host[0], host[0] - host[1], host[1])
        rates = self._query(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        return GpuSample(
            index=device.index,
            name=_text(self._query(lambda: nvml.nvmlDeviceGetName(handle))) or "GPU",
            total_bytes=memory.total if memory else None,
            used_bytes=memory.used if memory else None,
            free_bytes=memory.free if memory else None,
            utilization=rates.gpu if rates else None,
            temperature=self._query(lambda: nvml.nvmlDeviceGetTemperature(whole, 0)),
            power_watts=_thousandth(self._query(lambda: nvml.nvmlDeviceGetPowerUsage(whole))),
            power_limit=_thousandth(self._query(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(whole))),
            compute_capability=self._query(lambda: nvml.nvmlDeviceGetCudaComputeCapability(whole)),
            processes=tuple(self._processes(handle)),
            clock_mhz=self._query(lambda: nvml.nvmlDeviceGetClockInfo(whole, _SM_CLOCK)),
            max_clock_mhz=self._query(lambda: nvml.nvmlDeviceGetMaxClockInfo(whole, _SM_CLOCK)),
            mig_instance=device.instance,
            mig_uuid=self._uuid(handle) if device.instance is not None else None,
            has_unified_memory=is_unified,
        )

    def _has_no_memory(self, handle: Handle) -> bool:
        """Whether NVML says that it has no memory to tell of: an integrated GPU, which computes in the host's."""
        try:
            self._nvml.nvmlDeviceGetMemoryInfo(handle)
        except (self._nvml.NVMLError, AttributeError) as error:
            return getattr(error, "value", None) == _NOT_SUPPORTED
        return False

    def _memory(self, handle: Handle) -> _Memory | None:
        """Version 2 does not count the driver's reserve as used; old drivers only have version 1."""
        newer = self._query(lambda: self._nvml.nvmlDeviceGetMemoryInfo(handle, self._nvml.nvmlMemory_v2))
        return newer or self._query(lambda: self._nvml.nvmlDeviceGetMemoryInfo(handle))

    def _processes(self, handle: Handle) -> Iterator[GpuProcess]:
        for process in self._query(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ():
            name = self._process_name(process.pid)
            shown = Path(name).name if name else None
            yield GpuProcess(process.pid, shown, process.usedGpuMemory, _home_of(process.pid), _user_of(process.pid))

    def _process_name(self, pid: int) -> str | None:
        if name := _text(self._query(lambda: self._nvml.nvmlSystemGetProcessName(pid))):
            return name
        with suppress(psutil.Error):
            return psutil.Process(pid).name()
        return None

    def _visible(self, devices: list[_Device]) -> list[_Device]:
        """The GPUs that CUDA may use: like CUDA, stops at the first unknown entry."""
        names = os.environ.get("CUDA_VISIBLE_DEVICES")
        is_divided = any(device.instance is not None for device in devices)
        if names is None or ("MIG-" in names and not is_divided):
            return devices
        chosen = []
        for name in (part.strip() for part in names.split(",")):
            match = next((device for device in devices if self._is_named(device, name)), None)
            if match is None:
                break
            chosen.append(match)
        return chosen

    def _is_named(self, device: _Device, name: str) -> bool:
        if name.startswith(("GPU-", "MIG-")):
            handle = device.handle if name.startswith("MIG-") else device.whole
            return str(self._uuid(handle)).startswith(name)
        return name == str(device.index)

    def _uuid(self, handle: Handle) -> str | None:
        return _text(self._query(lambda: self._nvml.nvmlDeviceGetUUID(handle)))

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
