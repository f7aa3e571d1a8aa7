"""The memory budget of the next run on this machine, from all that decides it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.machine.device import Device
from workbench.machine.gpu import GpuSample
from workbench.machine.hardware import computes_bfloat16, gpu_device, hardware_now
from workbench.machine.host import HostSample
from workbench.machine.memory_budget import MemoryBudget, gpu_budget, host_budget
from workbench.machine.torch_build import torch_supports_gpus
from workbench.planning.launch import Launch, gpus_of, largest_base
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from workbench.engine.client.protocol import EngineStatus


def budget_of_run(
    home: Home,
    gpus: Sequence[GpuSample],
    host: HostSample | None,
    status: "EngineStatus | None" = None,
    launch: Launch | None = None,
    *,
    has_gpu_build: bool = True,
) -> MemoryBudget:
    """The memory that a run may take: of the GPUs it is launched on, or of the host where it cannot use any.

    Of several GPUs, one for each process, the fullest decides; on a CPU all processes share the host's memory. What
    this home's engine and its live run hold counts as free: it is released before the next run, or is the base that
    the run needs.

    Args:
        status: of the engine; None if none runs.
        launch: the processes of the run; None if the engine's own process trains, on the first GPU.
        has_gpu_build: whether PyTorch was built for GPUs; the engine, once it has looked, knows better.

    Returns:
        The budget; without ``free_bytes`` if that is unknown, or if no single memory decides since the base is sharded.
    """
    on_gpus = bool(gpus) and (
        status.device.kind == "cuda" if status is not None and status.device is not None else has_gpu_build
    )
    if on_gpus:
        available = host.available_bytes // (launch.processes if launch else 1) if host is not None else None
        return replace(_on_gpus(home, gpus, status, launch), host_bytes=available)
    return _on_host(host, status, launch, has_gpu=bool(gpus)) if host is not None else MemoryBudget()


def budget_now(home: Home, status: "EngineStatus | None", launch: Launch | None) -> MemoryBudget:
    """As :func:`budget_of_run`, with the hardware read once; takes up to a second."""
    gpus, host = hardware_now()
    return budget_of_run(home, gpus, host, status, launch, has_gpu_build=torch_supports_gpus())


def _on_host(host: HostSample, status: "EngineStatus | None", launch: Launch | None, *, has_gpu: bool) -> MemoryBudget:
    device = Device("cpu", bfloat16=computes_bfloat16(None))
    label = "host RAM; PyTorch cannot use the GPU" if has_gpu else "host RAM, no GPU"
    if launch is not None and launch.may_be_sharded:
        return MemoryBudget(device, label=label)
    held = status.model.bytes if status and status.model else 0
    return replace(host_budget(device, host, held, launch.processes if launch else 1), label=label)


def _on_gpus(
    home: Home, gpus: Sequence[GpuSample], status: "EngineStatus | None", launch: Launch | None
) -> MemoryBudget:
    taken = gpus_of(launch, gpus)
    # The engine's own process computes on the first GPU.
    reserved = {gpus[0].index: status.reserved} if status is not None else {}
    budgets = [
        _of_gpu(gpu, home, reserved.get(gpu.index, 0), chosen=launch is not None)
        for gpu in taken
        if gpu.free_bytes is not None
    ]
    if not budgets or (launch is not None and launch.may_be_sharded):
        return MemoryBudget(gpu_device(taken[0] if taken else gpus[0]), label="VRAM")
    fullest = min(budgets, key=lambda budget: budget.free_bytes or 0)
    place = fullest.place + (f", the fullest of {len(taken)} GPUs" if len(taken) > 1 else "")
    return replace(fullest, place=place, largest_base=largest_base(launch, gpus))


def _of_gpu(gpu: GpuSample, home: Home, reserved: int, *, chosen: bool) -> MemoryBudget:
    held = sum(process.bytes or 0 for process in gpu.processes if process.home == str(home.root))
    place = f"GPU {gpu.index} ({gpu.name})"
    budget = gpu_budget(gpu_device(gpu), gpu.free_bytes or 0, gpu.total_bytes, reserved, place, held)
    return replace(budget, label=f"VRAM of GPU {gpu.index}") if chosen else budget
