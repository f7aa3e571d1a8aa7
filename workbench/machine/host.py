"""Samples processor and memory of the host through psutil, within the limits of its container. Sizes are in bytes."""

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class HostSample:
    """The state of the host. In a container with a memory limit, the sizes are the container's.

    ``used_bytes`` is total minus available. ``process_bytes`` is the resident memory of the sampled process.
    """

    cpu_percent: float
    total_bytes: int
    used_bytes: int
    available_bytes: int
    process_bytes: int | None = None


class HostSampler:
    """Samples processor and memory of the host. The CPU load is the mean since the previous sample."""

    def __init__(self) -> None:
        psutil.cpu_percent()

    def sample(self, pid: int | None = None) -> HostSample:
        """Sample the host, with the resident memory of the process ``pid``."""
        total, available = host_memory()
        resident = None
        if pid:
            with suppress(psutil.Error):
                resident = psutil.Process(pid).memory_info().rss
        return HostSample(psutil.cpu_percent(), total, total - available, available, resident)


@cache
def processor_computes_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 in hardware: AVX512-BF16 or AMX."""
    with suppress(OSError):
        flags = _CPUINFO.read_text(encoding="ascii", errors="replace")
        return bool(re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", flags, re.MULTILINE))
    return False


def host_memory() -> tuple[int, int]:
    """Total and available memory of the host, or of this container."""
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    if limit := _container_memory():
        total = min(total, limit[0])
        available = min(available, limit[0] - limit[1])
    return total, available


def _container_memory(folder: Path = _CGROUP) -> tuple[int, int] | None:
    """Memory limit and use of this container (cgroup v2); None without a limit.

    The kernel counts cached file pages as used; inactive ones are subtracted, as it frees them on demand.
    """
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    inactive = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return limit, max(0, used - inactive)
