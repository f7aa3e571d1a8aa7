"""How much memory a run may take. Adapter tab, start check, queue and the run itself all go by one of these."""

from dataclasses import dataclass, field, replace

from workbench.machine.device import CUDA_CONTEXT_BYTES, Device
from workbench.machine.host import HostSample
from workbench.units import gib


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a run may take, or each process of it where there are several. Sizes are bytes.

    Attributes:
        device: what computes in this memory.
        free_bytes: None where it is unknown, or where no single memory decides.
        total_bytes: of the same memory, taken or not.
        label: what kind of memory it is, in a word or two: ``VRAM``.
        place: where it is, for a sentence: ``GPU 0 (NVIDIA L4)``.
        largest_base: the largest base that each process holds whole; a larger one is sharded. None where none is.
        host_bytes: host memory available to it beside a GPU's; None where it is unknown, and on a CPU.
        is_typed: a limit that the user typed, and not what is free.
    """

    device: Device = field(default_factory=Device)
    free_bytes: int | None = None
    total_bytes: int | None = None
    label: str = "memory"
    place: str = "this machine"
    largest_base: int | None = None
    is_typed: bool = False
    host_bytes: int | None = None

    def limited_to(self, limit: int) -> "MemoryBudget":
        """A budget of exactly ``limit`` bytes on the same device, whatever is free on this machine.

        More than is free here is another machine's memory, whose host is unknown.
        """
        is_here = self.free_bytes is not None and limit <= self.free_bytes
        host_bytes = self.host_bytes if is_here else None
        return MemoryBudget(self.device, limit, limit, "your memory limit", is_typed=True, host_bytes=host_bytes)

    @property
    def free_text(self) -> str:
        """``20.00 GiB free on GPU 0 (NVIDIA L4)``; empty where it is unknown."""
        if self.free_bytes is None:
            return ""
        size = gib(self.free_bytes, 2)
        return f"your memory limit is {size}" if self.is_typed else f"{size} free on {self.place}"

    def at_most(self, limit: int) -> "MemoryBudget":
        """This budget, or ``limit`` bytes where that is less."""
        if self.free_bytes is None or self.free_bytes <= limit:
            return self
        return replace(self.limited_to(limit), largest_base=self.largest_base)


def gpu_budget(
    device: Device, free_bytes: int, total_bytes: int | None, reserved: int, place: str, held: int = 0
) -> MemoryBudget:
    """The memory of one GPU.

    Args:
        free_bytes: as the driver counts.
        reserved: what PyTorch's allocator holds there in the process that is to train. A run gets it, and the CUDA
            context of that process, which a predicted peak counts as well.
        held: what the driver says that processes hold which end, or release it, before the run; 0 where unknown.
    """
    own = reserved + CUDA_CONTEXT_BYTES if reserved else 0
    free = free_bytes + max(own, held)
    return MemoryBudget(device, min(free, total_bytes or free), total_bytes, "VRAM", place)


def host_budget(device: Device, host: HostSample, held: int = 0, processes: int = 1) -> MemoryBudget:
    """The memory of the host, which all processes of a run on the CPU share.

    Args:
        held: bytes of a loaded base, which is released before a run or is the one that it needs.
        processes: of the run; each may take an equal part.
    """
    free = min(host.available_bytes + held, host.total_bytes) // processes
    place = "this machine (CPU training)"
    if processes > 1:
        place = f"this machine for each of {processes} processes (CPU training)"
    return MemoryBudget(device, free, host.total_bytes, "host RAM, no GPU", place)
