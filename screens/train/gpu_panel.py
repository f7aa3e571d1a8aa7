"""The hardware panel: memory and load over time, of the GPU or, without one, of the machine."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from screens.charts.spark import spark
from screens.shell.header import short_gpu
from screens.widgets.glyphs import GLYPHS, Glyphs, bar
from screens.widgets.key_texts import key
from screens.widgets.line_painted import UNSTYLED, LinePaintedWidget, Piece, strip_of
from screens.widgets.paragraph import set_title
from workbench.units import gib, gib_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.strip import Strip

    from workbench.machine.gpu import GpuSample
    from workbench.machine.host import HostSample

_SECONDS_KEPT = 240

_READINGS_A_REPAINT_AT_REST = 5
"""Without a live run: the courses move with each reading, and each repaint is sent over SSH."""


class GpuPanel(LinePaintedWidget):
    """Memory, load, temperature and power, read once a second, with memory and load of the last minutes.

    On a machine without a GPU it shows host memory and CPU load in the same places, and says so.
    """

    COMPONENT_CLASSES = {  # noqa: RUF012
        "gpu-panel--label",
        "gpu-panel--good",
        "gpu-panel--tight",
        "gpu-panel--over",
        "gpu-panel--load",
    }
    DEFAULT_CSS = """
    GpuPanel { border: round $border; border-title-color: $text-muted; padding: 0 1; }
    GpuPanel > .gpu-panel--label { color: $text-muted; }
    GpuPanel > .gpu-panel--good { color: $success; }
    GpuPanel > .gpu-panel--tight { color: $warning; }
    GpuPanel > .gpu-panel--over { color: $error; }
    GpuPanel > .gpu-panel--load { color: $primary; }
    """

    def __init__(self, *, glyphs: Glyphs = GLYPHS, **names: str | None) -> None:
        super().__init__(**names)
        self._glyphs = glyphs
        self._gpu: GpuSample | None = None
        self._gpus: Sequence[GpuSample] = ()
        self._host: HostSample | None = None
        self._memory: deque[float] = deque(maxlen=_SECONDS_KEPT)
        self._load: deque[float] = deque(maxlen=_SECONDS_KEPT)
        self._engine: int | None = None
        self._run: tuple[int, int | None] = (0, None)
        self._unpainted = _READINGS_A_REPAINT_AT_REST

    def sample(
        self,
        gpus: Sequence[GpuSample],
        host: HostSample | None,
        engine: int | None = None,
        *,
        is_live: bool = True,
    ) -> None:
        """Add a reading. Several GPUs have a row each.

        Args:
            engine: process id of the engine; all other processes on the GPU count as others.
            is_live: whether a run is live; otherwise only every fifth reading is painted.
        """
        self._engine = engine
        self._gpu = max(gpus, key=lambda gpu: gpu.used_bytes or 0) if gpus else None
        self._host, self._gpus = host, gpus
        if len(gpus) > 1:
            set_title(self, f"{len(gpus)} GPUs {self._glyphs.separator} {key('train.gpus')} shows all")
        elif self._gpu is not None:
            self._memory.append(self._gpu.used_bytes or 0)
            self._load.append(self._gpu.utilization or 0)
            set_title(self, f"GPU {self._gpu.index} {self._glyphs.separator} {short_gpu(self._gpu.name)}")
        elif host is not None:
            self._memory.append(host.used_bytes)
            self._load.append(host.cpu_percent)
            set_title(self, f"no GPU {self._glyphs.separator} host")
        self._unpainted += 1
        if is_live or self._unpainted >= _READINGS_A_REPAINT_AT_REST:
            self._unpainted = 0
            self.changed()

    def run_used(self, peak: int, predicted: int | None) -> None:
        """Show the measured and the predicted peak of the run, in bytes.

        Args:
            peak: 0 until it was measured.
            predicted: None if it was not predicted.
        """
        if (peak, predicted) != self._run:
            self._run = (peak, predicted)
            self.changed()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        if len(self._gpus) > 1:
            return self._fit(self._rows(width, height), height)
        if self._gpu is not None:
            return self._fit(self._gpu_lines(self._gpu, width), height)
        if self._host is not None:
            return self._fit(self._host_lines(self._host, width), height)
        return [strip_of([("waiting for the first reading", self._style("label"))])]

    def _gpu_lines(self, gpu: GpuSample, width: int) -> list[list[Piece]]:
        heat = [f"{gpu.temperature:.0f} °C"] if gpu.temperature is not None else []
        power = [f"{gpu.power_watts:.0f} W"] if gpu.power_watts is not None else []
        load = f"{gpu.utilization:3.0f} %" if gpu.utilization is not None else "N/A"
        return [
            self._memory_line("VRAM", gpu.used_bytes, gpu.total_bytes, width),
            self._run_line("run", None),
            self._course("util", load, self._load, 100.0, "load", width),
            [
                ("   ".join(heat + power) or "N/A", UNSTYLED),
                ("   others ", self._style("label")),
                self._others(gpu),
            ],
        ]

    def _rows(self, width: int, height: int) -> list[list[Piece]]:
        """Return a row for each GPU, the run's peak above them; the last row says how many have no room."""
        room = height - 1
        shown = self._gpus if len(self._gpus) <= room else self._gpus[: room - 1]
        rows = [self._run_line("run", None)]
        for gpu in shown:
            share = gpu.used_bytes / gpu.total_bytes if gpu.used_bytes is not None and gpu.total_bytes else 0.0
            load = f" {gpu.utilization:3.0f} %" if gpu.utilization is not None else "  N/A"
            heat = f" {gpu.temperature:.0f} °C" if gpu.temperature is not None else ""
            used = gib_number(gpu.used_bytes, 1) if gpu.used_bytes is not None else "N/A"
            total = gib(gpu.total_bytes, 0) if gpu.total_bytes else "?"
            text = f"{self._glyphs.right} {used:>5}/{total}{load}{heat}"
            room_of_bar = max(4, min(16, width - len(text) - 5))
            rows.append(
                [
                    (f"{gpu.label:<3}", UNSTYLED),
                    (self._glyphs.left, self._style("label")),
                    (bar(share, room_of_bar, self._glyphs), self._style(_tone(share))),
                    (text, UNSTYLED),
                ]
            )
        if len(shown) < len(self._gpus):
            rows.append([(f"and {len(self._gpus) - len(shown)} more", self._style("label"))])
        return rows

    def _others(self, gpu: GpuSample) -> Piece:
        """Return the memory that other processes hold on the GPU."""
        others = [process for process in gpu.processes if process.pid != self._engine]
        if not others:
            return "none", UNSTYLED
        known = sum(process.bytes or 0 for process in others)
        return gib(known) if known else str(len(others)), self._style("tight")

    def _host_lines(self, host: HostSample, width: int) -> list[list[Piece]]:
        return [
            self._memory_line("RAM", host.used_bytes, host.total_bytes, width),
            self._run_line("engine", host.process_bytes),
            self._course("CPU", f"{host.cpu_percent:3.0f} %", self._load, 100.0, "load", width),
            [("No GPU: training on the CPU.", self._style("label"))],
            [("Memory shown is host RAM.", self._style("label"))],
        ]

    def _memory_line(self, label: str, used: int | None, total: int | None, width: int) -> list[Piece]:
        if used is None or not total:
            return [(f"{label} ", self._style("label")), ("N/A", UNSTYLED)]
        share = used / total
        tone = _tone(share)
        text = f"{gib_number(used, 1):>5}/{gib(total, 0)}"
        return self._course(label, text, self._memory, float(total), tone, width)

    def _course(self, label: str, text: str, values: Sequence[float], top: float, tone: str, width: int) -> list[Piece]:
        head = f"{label.ljust(4)} "
        room = max(0, width - len(head) - len(text) - 1)
        return [
            (head, self._style("label")),
            (f"{text} ", UNSTYLED),
            (spark(list(values), room, top, self._glyphs), self._style(tone)),
        ]

    def _run_line(self, label: str, now: int | None) -> list[Piece]:
        peak, predicted = self._run
        facts = [("now", now), ("peak", peak or None), ("predicted", predicted)]
        pieces: list[Piece] = []
        for name, size in facts:
            if size is not None:
                pieces += [(f"{name} ", self._style("label")), (f"{gib_number(size)}  ", UNSTYLED)]
        if not pieces:
            return [(f"{label}: not measured yet", self._style("label"))]
        return [(f"{label} ", self._style("label")), *pieces, ("GiB", self._style("label"))]

    def _fit(self, lines: list[list[Piece]], height: int) -> list[Strip]:
        return [strip_of(line) for line in lines[:height]]

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"gpu-panel--{name}")


def _tone(share: float) -> str:
    """Return how full a memory is, by the name of its style."""
    return "over" if share > 0.97 else "tight" if share > 0.85 else "good"
