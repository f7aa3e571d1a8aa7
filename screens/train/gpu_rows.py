"""Text of GPUs and their processes: a row each, in columns that depend on the width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.shell.header import short_gpu
from screens.widgets.glyphs import GLYPHS, bar
from screens.widgets.plain import plain
from workbench.machine.gpu import other_processes
from workbench.units import gib, gib_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.machine.gpu import GpuProcess, GpuSample
    from workbench.machine.host import HostSample

# Cells of a bar, by the least width of the row.
_BARS = ((120, 20), (97, 10), (0, 6))


def gpu_row(gpu: GpuSample, width: int, *, is_selected: bool = False) -> Content:
    """``❯ 0 H200   31.2/139 GiB ▕██ ▏  96 % ▕███▏  61 °C  612/700 W  1980/1980 MHz``; the last ones drop first."""
    length = next(cells for least, cells in _BARS if width >= least)
    name = f"{gpu.label} {short_gpu(gpu.name)}" + (" MIG" if gpu.mig_instance is not None else "")
    parts = [
        Content.assemble((f"{GLYPHS.pointer if is_selected else ' '} ", "$accent"), (f"{name:<10}", "bold")),
        _memory(gpu, length),
        _load(gpu.utilization, length),
        Content(f"{gpu.temperature:3.0f} °C" if gpu.temperature is not None else "N/A °C"),
        Content(_of(gpu.power_watts, gpu.power_limit, "W")),
        Content(_of(gpu.clock_mhz, gpu.max_clock_mhz, "MHz")),
    ]
    while len(parts) > 2 and sum(part.cell_length + 2 for part in parts) - 2 > width:
        parts.pop()
    return Content("  ").join(parts)


def host_row(host: HostSample, width: int) -> Content:
    """The same for the host, on a machine without a GPU."""
    length = next(cells for least, cells in _BARS if width >= least)
    share = host.used_bytes / host.total_bytes
    parts = [
        Content.assemble((f"{GLYPHS.pointer} ", "$accent"), ("host      ", "bold")),
        _sized(host.used_bytes, host.total_bytes, share, length),
        _load(host.cpu_percent, length),
    ]
    return Content("  ").join(parts)


def notes(gpus: Sequence[GpuSample]) -> Content:
    """What is special about the GPUs: MIG instances, memory that is shared with the host."""
    found = []
    if any(gpu.mig_instance is not None for gpu in gpus):
        found.append("MIG: each row is an instance of a divided GPU; temperature, power and clock are the GPU's.")
    if any(gpu.has_unified_memory for gpu in gpus):
        found.append("Unified memory: the GPU uses the host's memory, which all programs share.")
    return Content.styled("\n".join(found), "$muted")


def process_rows(gpus: Sequence[GpuSample], width: int) -> list[Content]:
    """The processes on all GPUs, those of this user's workbench marked, by GPU and memory."""
    rows = [
        _process(gpu, process, width)
        for gpu in gpus
        for process in (*(one for one in gpu.processes if one.home is not None), *other_processes(gpu))
    ]
    if not rows:
        return [Content.styled("No process computes on a GPU.", "$muted")]
    head = f"  {'GPU':<5}{'pid':>8}  {'user':<12}{'memory':>10}  process"
    return [Content.styled(head, "$muted"), *rows]


def _process(gpu: GpuSample, process: GpuProcess, width: int) -> Content:
    is_ours = process.home is not None
    held = gib(process.bytes, 2) if process.bytes else "N/A"
    user = plain(process.user or "?")[:11]
    mark = GLYPHS.dot if is_ours else " "
    name = plain(process.name or "?") + (" (loraworkbench)" if is_ours else "")
    text = f"{gpu.label:<5}{process.pid:>8}  {user:<12}{held:>10}  {name}"
    return Content.assemble((f"{mark} ", "$accent"), (text[: max(0, width - 2)], "$accent" if is_ours else ""))


def _memory(gpu: GpuSample, length: int) -> Content:
    if gpu.used_bytes is None or not gpu.total_bytes:
        return Content.styled("memory unknown".ljust(length + 17), "$muted")
    return _sized(gpu.used_bytes, gpu.total_bytes, gpu.used_bytes / gpu.total_bytes, length)


def _sized(used: int, total: int, share: float, length: int) -> Content:
    text = f"{gib_number(used, 1):>5}/{gib(total, 0)}"
    return Content.assemble(f"{text:>14} ", _bar(share, length, _tone(share)))


def _load(percent: float | None, length: int) -> Content:
    if percent is None:
        return Content.styled("N/A".rjust(5).ljust(length + 8), "$muted")
    return Content.assemble(f"{percent:3.0f} % ", _bar(percent / 100, length, "primary"))


def _bar(share: float, length: int, color: str) -> Content:
    return Content.assemble(
        (GLYPHS.left, "$muted"), (bar(share, length), f"${color} on $panel"), (GLYPHS.right, "$muted")
    )


def _tone(share: float) -> str:
    return "error" if share > 0.97 else "warning" if share > 0.85 else "success"


def _of(now: float | None, most: float | None, unit: str) -> str:
    if now is None:
        return f"N/A {unit}"
    return f"{now:3.0f}/{most:.0f} {unit}" if most is not None else f"{now:3.0f} {unit}"
