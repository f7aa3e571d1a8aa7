"""Samples GPUs and host together, and tells what both can compute."""

from typing import Self

from workbench.machine.device import Device
from workbench.machine.gpu import GpuSample, GpuSampler
from workbench.machine.host import HostSample, HostSampler, processor_computes_bfloat16


class HardwareSampler:
    """Samples GPUs and host together. Must be closed, as :class:`GpuSampler`; to sample once: :func:`hardware_now`."""

    def __init__(self) -> None:
        self.gpus = GpuSampler()
        self.host = HostSampler()

    def sample(self, pid: int | None = None) -> tuple[list[GpuSample], HostSample]:
        return self.gpus.sample(), self.host.sample(pid)

    def close(self) -> None:
        """Release NVML."""
        self.gpus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hardware_now() -> tuple[list[GpuSample], HostSample]:
    """Sample GPUs and host once."""
    with HardwareSampler() as sampler:
        return sampler.sample()


def gpu_device(gpu: GpuSample | None) -> Device:
    """A GPU as what a run computes on; one with bfloat16 units if None."""
    if gpu is None:
        return Device()
    major = gpu.compute_capability[0] if gpu.compute_capability else None
    return Device(bfloat16=computes_bfloat16(gpu), compute_capability=major)


def computes_bfloat16(gpu: GpuSample | None) -> bool:
    """Whether the GPU, or without one this machine's processor, multiplies bfloat16 in hardware.

    GPUs do from compute capability 8.0 (Ampere), which is assumed if it is unknown. x86 processors do with AVX512-BF16
    or AMX.
    """
    if gpu is not None:
        return gpu.compute_capability is None or gpu.compute_capability >= (8, 0)
    return processor_computes_bfloat16()
