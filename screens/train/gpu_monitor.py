"""The GPUs of this machine: a row each, their history with a time scale, and who computes on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content

from screens.charts.history_chart import HistoryChart
from screens.hardware_history import HOST
from screens.train.gpu_rows import gpu_row, host_row, notes, process_rows
from screens.widgets.box_screen import BoxScreen
from screens.widgets.paragraph import Paragraph, set_title

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.workbench import Workbench
    from workbench.machine.gpu import GpuSample

_SECONDS = 1.0


class GpuMonitor(BoxScreen[bool]):
    """All GPUs, read once a second; returns True if GPUs are to be chosen for the next run."""

    NAME: ClassVar[str] = "GPUs"
    GUIDE: ClassVar[str] = (
        "Each GPU that CUDA may use: memory, load, temperature, power of its limit, clock of the "
        "multiprocessors. The chart shows memory and load of the selected one over up to 15 minutes. Below it are the "
        "processes with their users; a dot marks those of your workbench. Without a GPU the rows are the host's."
    )
    DEFAULT_CSS = """
    GpuMonitor > Vertical { width: 96%; height: 92%; }
    GpuMonitor Paragraph { height: auto; }
    GpuMonitor HistoryChart { margin-top: 1; max-height: 16; }
    GpuMonitor VerticalScroll { height: auto; max-height: 40%; margin-top: 1; scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Choose for the next run", id="monitor.choose", tooltip="Choose GPUs to train on"),
        Binding("down,n", "select(1)", "Next", id="monitor.next", tooltip="Show the history of the next GPU"),
        Binding(
            "up,p", "select(-1)", "Previous", id="monitor.previous", tooltip="Show the history of the previous GPU"
        ),
        Binding("escape,q,G", "leave", "Back", id="monitor.leave"),
    ]

    def __init__(self, *, may_choose: bool) -> None:
        super().__init__()
        self._may_choose = may_choose
        self._selected = 0
        self._rows = Paragraph(id="gpus")
        self._notes = Paragraph(id="notes")
        self._chart = HistoryChart()
        self._processes = Paragraph(id="processes")
        self._box = Vertical(
            self._rows, self._notes, self._chart, VerticalScroll(self._processes, can_focus=False)
        )  # fmt: skip

    def compose(self) -> ComposeResult:
        yield self._box

    def on_mount(self) -> None:
        set_title(self._box, "GPUs")
        keys = "Enter choose for the next run   ↑ ↓ other GPU   " if self._may_choose else ""
        self._box.border_subtitle = f"{keys}Esc back"
        self.set_interval(_SECONDS, self._show)

    def on_resize(self) -> None:
        self._show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "choose":
            return self._may_choose
        return action != "select" or len(self._gpus) > 1

    def action_choose(self) -> None:
        """Close, and choose GPUs for the next run."""
        self.dismiss(True)

    def action_select(self, by: int) -> None:
        """Show the history of the next or the previous GPU."""
        self._selected = (self._selected + by) % max(1, len(self._gpus))
        self._show()

    def action_leave(self) -> None:
        """Close the monitor."""
        self.dismiss(False)

    @property
    def _gpus(self) -> tuple[GpuSample, ...]:
        return cast("Workbench", self.app).session.gpus

    def _show(self) -> None:
        session, width = cast("Workbench", self.app).session, self._box.content_size.width
        gpus, host = session.gpus, session.host
        if gpus:
            at = min(self._selected, len(gpus) - 1)
            rows = [gpu_row(gpu, width, is_selected=i == at) for i, gpu in enumerate(gpus)]
            self._chart.show(session.hardware_history.of(gpus[at].label), "load")
            self._processes.show(Content("\n").join(process_rows(gpus, width)))
        else:
            rows = [host_row(host, width)] if host is not None else [Content("No reading yet.")]
            self._chart.show(session.hardware_history.of(HOST), "CPU")
            self._processes.show(Content.styled("No GPU: training on the CPU.", "$muted"))
        self._rows.show(Content("\n").join(rows))
        self._notes.show_or_hide(notes(gpus))
