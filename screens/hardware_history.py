"""Memory and load of each GPU, or of the host, over the last minutes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.machine.gpu import GpuSample
    from workbench.machine.host import HostSample

SECONDS_KEPT = 900
HOST = "host"
"""The label of the host's readings, on a machine without a GPU."""


@dataclass(frozen=True)
class HardwareReading:
    """One reading: seconds of any clock, memory in use and load, each from 0 to 1; None if unknown."""

    at: float
    memory: float | None
    load: float | None


class HardwareHistory:
    """The readings of :data:`SECONDS_KEPT`, by the label of the GPU."""

    def __init__(self) -> None:
        self._readings: dict[str, deque[HardwareReading]] = {}

    def add(self, at: float, gpus: Sequence[GpuSample], host: HostSample | None) -> None:
        """Add a reading of all GPUs; of the host if there is none."""
        for gpu in gpus:
            load = None if gpu.utilization is None else gpu.utilization / 100
            self._add(gpu.label, HardwareReading(at, _share(gpu.used_bytes, gpu.total_bytes), load))
        if not gpus and host is not None:
            memory = _share(host.used_bytes, host.total_bytes)
            self._add(HOST, HardwareReading(at, memory, host.cpu_percent / 100))

    def of(self, label: str) -> Sequence[HardwareReading]:
        """The readings of a GPU, oldest first."""
        return self._readings.get(label, ())

    def _add(self, label: str, reading: HardwareReading) -> None:
        kept = self._readings.setdefault(label, deque())
        kept.append(reading)
        while kept[0].at < reading.at - SECONDS_KEPT:
            kept.popleft()


def _share(used: int | None, total: int | None) -> float | None:
    return used / total if used is not None and total else None
