"""The dialog that chooses the GPUs of the next run, each with its free memory and its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalGroup
from textual.widgets import Button, SelectionList, Static
from textual.widgets.selection_list import Selection

from screens.dialogs.questions import Dialog
from screens.train.gpu_rows import notes
from screens.widgets.plain import plain_content
from workbench.errors import WorkbenchError
from workbench.machine.gpu import GpuProcess, other_processes
from workbench.planning.launch import Launch
from workbench.units import gib, gib_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from workbench.machine.gpu import GpuSample

# Processes of one GPU that are named; the others are counted.
_NAMED = 2


class GpuChoiceDialog(Dialog[tuple[int | str, ...]]):
    """A check box for each GPU; returns the :attr:`GpuSample.device` of the selected ones, in the order of
    the list.

    Args:
        gpus: the GPUs of this machine.
        chosen: the devices that are selected at first.
    """

    DEFAULT_CSS = """
    GpuChoiceDialog > VerticalGroup { width: 96; }
    GpuChoiceDialog SelectionList, GpuChoiceDialog SelectionList:focus {
        height: auto; max-height: 16; border: none; background: $surface; padding: 0; margin-bottom: 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "Use these", id="gpus.take", tooltip="Train on the selected GPUs", priority=True),
        Binding("up", "cursor(-1)", show=False, priority=True),
        Binding("down", "cursor(1)", show=False, priority=True),
    ]

    def __init__(self, gpus: Sequence[GpuSample], chosen: Sequence[int | str]) -> None:
        super().__init__()
        self._gpus = tuple(gpus)
        self._list = SelectionList[int | str](
            *(Selection(plain_content(words(gpu)), gpu.device, gpu.device in chosen) for gpu in self._gpus)
        )
        self._problem = Static(classes="problem", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "GPUs for the next run"
            yield Static(
                plain_content(
                    "Space selects. With several GPUs each trains on its own part of the data; the effective "
                    "batch grows with their number.",
                    lines=True,
                )
            )
            yield self._list
            yield Static(notes(self._gpus), classes="keys")
            yield self._problem
            with Horizontal():
                yield Button("Use these (Enter)", compact=True, variant="primary")

    def on_mount(self) -> None:
        self._list.focus()

    def action_cursor(self, by: int) -> None:
        """Go up or down in the list."""
        self._list.action_cursor_down() if by > 0 else self._list.action_cursor_up()

    @on(Button.Pressed)
    def action_take(self) -> None:
        """Return the selected GPUs."""
        selected = set(self._list.selected)
        devices = tuple(gpu.device for gpu in self._gpus if gpu.device in selected)
        if not devices:
            self._problem.update("Select at least one GPU; Esc cancels.")
            return
        try:
            Launch.on(devices).check()
        except WorkbenchError as error:
            self._problem.update(f"{error.message} {error.cure}")
        else:
            self.dismiss(devices)


def words(gpu: GpuSample) -> str:
    """``0   NVIDIA A100   31.2 of 40.0 GiB free   no other processes``."""
    memory = "memory unknown"
    if gpu.free_bytes is not None and gpu.total_bytes is not None:
        memory = f"{gib_number(gpu.free_bytes, 1):>5} of {gib(gpu.total_bytes, 1)} free"
    shared = " (the host's)" if gpu.has_unified_memory else ""
    return f"{gpu.label:<3} {_name(gpu):<24}  {memory}{shared}  {_who(other_processes(gpu))}"


def _name(gpu: GpuSample) -> str:
    """The name, which for a MIG instance ends in its profile, as NVML has it."""
    return f"{gpu.name} MIG" if gpu.mig_instance is not None and "MIG" not in gpu.name else gpu.name


def _who(others: Sequence[GpuProcess]) -> str:
    if not others:
        return "no other processes"
    named = [_one(process) for process in others[:_NAMED]]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return ", ".join(named) + more


def _one(process: GpuProcess) -> str:
    held = f" {gib(process.bytes, 1)}" if process.bytes else ""
    return f"{process.name or 'process'} ({process.pid}){held}"
