"""Take a run elsewhere: what it becomes, where it goes, what that takes; then a bar, and what came of it."""

from __future__ import annotations

import asyncio
import shlex
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup, VerticalScroll
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from screens.shell.dialogs import Dialog
from screens.shell.phase_bar import PhaseBar
from screens.widgets.plain import plain, plain_content
from workbench.errors import WorkbenchError
from workbench.export.plan import Plan, plan_export
from workbench.export.request import TARGETS, Exported, Request
from workbench.export.run import export_run
from workbench.units import clock, rounded_file_size

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from workbench.progress import Progress
    from workbench.runs.folder import RunFolder
    from workbench.storage.paths import Home


@dataclass(frozen=True)
class _Row:
    """One line of the list: a target, and which form of it."""

    label: str
    options: dict[str, str]


_ROWS = (
    _Row("adapter", {"target": "adapter"}),
    _Row("merged", {"target": "merged"}),
    _Row("gguf, 16 bits", {"target": "gguf", "type": "f16"}),
    _Row("gguf, 8 bits", {"target": "gguf", "type": "q8_0"}),
    _Row("ollama, 16 bits", {"target": "ollama", "type": "f16"}),
    _Row("ollama, 8 bits", {"target": "ollama", "type": "q8_0"}),
    _Row("vllm, adapter", {"target": "vllm", "weights": "adapter"}),
    _Row("vllm, merged", {"target": "vllm", "weights": "merged"}),
    _Row("tgi, adapter", {"target": "tgi", "weights": "adapter"}),
    _Row("tgi, merged", {"target": "tgi", "weights": "merged"}),
    _Row("hub, adapter", {"target": "hub", "weights": "adapter"}),
    _Row("hub, merged", {"target": "hub", "weights": "merged"}),
    _Row("script", {"target": "script"}),
    _Row("notebook", {"target": "notebook"}),
    _Row("axolotl", {"target": "axolotl"}),
    _Row("llamafactory", {"target": "llamafactory"}),
)


class ExportDialog(Dialog[Exported]):
    """Exports one run; comes back with what was made, or nothing.

    The work is done by a process of its own, which a thread waits for. Escape ends it, and leaves nothing of it.
    """

    DEFAULT_CSS = """
    ExportDialog OptionList, ExportDialog OptionList:focus {
        height: auto; max-height: 8; border: none; background: $surface; padding: 0; margin-bottom: 1;
    }
    ExportDialog Static { height: auto; }
    ExportDialog .about, ExportDialog .keys { color: $text-muted; }
    ExportDialog #plan { margin-top: 1; }
    ExportDialog #made { max-height: 20; }
    ExportDialog PhaseBar, ExportDialog #made, ExportDialog #repo { display: none; }
    ExportDialog.-hub #repo { display: block; }
    ExportDialog.-busy PhaseBar { display: block; }
    ExportDialog.-busy OptionList, ExportDialog.-busy Input, ExportDialog.-busy .label { display: none; }
    ExportDialog.-made #made { display: block; }
    ExportDialog.-made #choice { display: none; }
    ExportDialog .label { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Back", id="export.close", tooltip="Cancel the export, or close"),
        Binding("y", "copy", "Copy", id="export.copy", tooltip="Copy the next command"),
        Binding("enter", "done", "Back", show=False, id="export.done"),
        # Arrows move along the list; the tabulator goes on to the folder.
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    class Moved(Message, bubble=False):
        """The helper process got further."""

        def __init__(self, progress: Progress) -> None:
            super().__init__()
            self.progress = progress

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, ExportDialog.Moved)

    class Ended(Message, bubble=False):
        """The export is there, or is not to be had."""

        def __init__(self, made: Exported | None, error: WorkbenchError | None) -> None:
            super().__init__()
            self.made = made
            self.error = error

    def __init__(self, home: Home, run: RunFolder) -> None:
        super().__init__()
        self._home = home
        self._run = run
        self._cancelled = threading.Event()
        self._made: Exported | None = None
        self._own_folder = False
        self._proposed = ""

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(f"Export {self._run.title}").markup
            with VerticalGroup(id="choice"):
                yield OptionList(*(Option(row.label) for row in _ROWS))
                yield Static(classes="about", id="about")
                yield Static("folder", classes="label", markup=False)
                yield Input(compact=True, id="folder")
                yield Input(compact=True, id="repo", placeholder="owner/name on the hub (private)")
                yield Static(id="plan", markup=False)
                yield PhaseBar()
            with VerticalScroll(id="made"):
                yield Static(id="words", markup=False)
            yield Static("Enter export   Tab to the folder   Esc back", classes="keys", id="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0
        self.query_one(OptionList).focus()

    # -- what is asked for ----------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        return self.has_class("-busy")

    def request(self) -> Request:
        """What the lines of the dialog ask for."""
        row = _ROWS[self.query_one(OptionList).highlighted or 0]
        folder = Path(self.query_one("#folder", Input).value).expanduser().resolve()
        repo = self.query_one("#repo", Input).value.strip() or None
        return Request(folder=folder, repo=repo, **row.options)  # type: ignore[arg-type]

    @on(OptionList.OptionHighlighted)
    def _chosen(self, event: OptionList.OptionHighlighted) -> None:
        row = _ROWS[event.option_index]
        self.query_one("#about", Static).update(plain_content(TARGETS[row.options["target"]]))  # type: ignore[index]
        self.set_class(row.options["target"] == "hub", "-hub")
        if not self._own_folder:
            name = f"{self._run.id}-{row.label.replace(', ', '-').replace(' ', '')}"
            self._proposed = str(Path.cwd() / plain(name))
            self.query_one("#folder", Input).value = self._proposed
        self._look()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        if event.input.id == "folder" and event.value != self._proposed:
            self._own_folder = True
        self._look()

    def _look(self) -> None:
        if not self.is_busy and self._made is None:
            self.run_worker(self._show_plan(self.request()), exclusive=True, group="plan")

    async def _show_plan(self, request: Request) -> None:
        """What it takes, or what stands in its way; looked at off the event loop, for files are read."""
        line = self.query_one("#plan", Static)
        try:
            plan = await asyncio.to_thread(plan_export, self._home, self._run, request)
            await asyncio.to_thread(plan.check, request.folder)
        except WorkbenchError as error:
            line.add_class("problem").update(plain_content(error, lines=True))
        else:
            line.remove_class("problem").update(plain_content(plan_words(plan), lines=True))

    # -- the work -------------------------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _start(self) -> None:
        """Begin; the plan is looked at again by the one who does the work."""
        if self.is_busy or self._made is not None:
            return
        self._cancelled.clear()
        self.set_class(True, "-busy")
        self.query_one(PhaseBar).show("starting")
        self.query_one("#keys", Static).update("Esc cancels and removes partial files")
        # A daemon: a terminal that is closed does not wait for it. Its process ends with this one.
        threading.Thread(target=self._work, args=(self.request(),), daemon=True, name="export").start()

    def _tell(self, progress: Progress) -> None:
        self.post_message(self.Moved(progress))

    def _work(self, request: Request) -> None:
        """In a thread of its own."""
        try:
            made = export_run(
                self._home,
                self._run,
                request,
                self._tell,
                self._cancelled.is_set,
            )
        except Exception as error:
            from workbench.failures.diagnose import diagnose

            self.post_message(self.Ended(None, diagnose(error, "exporting the run", self._home.terminal_log)))
        else:
            self.post_message(self.Ended(made, None))

    @on(Moved)
    def _moved(self, message: Moved) -> None:
        progress = message.progress
        self.query_one(PhaseBar).show(progress.phase, progress.fraction, progress.detail)

    @on(Ended)
    def _ended(self, message: Ended) -> None:
        self.set_class(False, "-busy")
        self._made = message.made
        keys = self.query_one("#keys", Static)
        if message.made is None:
            keys.update("Enter export   Tab to the folder   Esc back")
            if message.error is not None:
                self.query_one("#plan", Static).add_class("problem").update(plain_content(message.error, lines=True))
            self.query_one(OptionList).focus()
            return
        self.set_class(True, "-made")
        self.query_one("#words", Static).update(plain_content(made_words(message.made), lines=True))
        keys.update("y copy the command   Esc back" if message.made.command else "Esc back")
        self.query_one("#made").focus()

    # -- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("copy", "done"):
            return self._made is not None
        return True

    def action_close(self) -> None:
        if self.is_busy:
            self._cancelled.set()
        else:
            self.dismiss(self._made)

    def action_done(self) -> None:
        self.dismiss(self._made)

    def action_copy(self) -> None:
        """Copy the next command."""
        if self._made is not None and self._made.command:
            self.app.copy_to_clipboard(plain(next_command(self._made)))
            self.notify("Copied.", timeout=2)

    def on_unmount(self) -> None:
        self._cancelled.set()


def plan_words(plan: Plan) -> str:
    """``270 MB to write, 80 GB free · 2.8 GB of memory, 21 GB free · about 28 s``, and what is to be known of it."""
    parts = [f"{rounded_file_size(plan.size)} to write, {rounded_file_size(plan.free)} free"]
    if plan.memory:
        parts.append(f"{rounded_file_size(plan.memory)} RAM, {rounded_file_size(plan.free_memory)} free")
    parts.append(f"about {clock(plan.seconds)}")
    return "\n".join([" · ".join(parts), *plan.notices])


def made_words(made: Exported) -> str:
    """Where it is, what to type next, how it was checked, what to know of it, and the files."""
    files = "\n".join(f"{rounded_file_size(size):>8}  {name}" for name, size in made.files)
    parts = [f"Exported to {made.folder}.", next_command(made), made.check, *made.notices, files]
    return "\n\n".join(part for part in parts if part)


def next_command(made: Exported) -> str:
    """To be typed in any folder; the address of what went to the hub."""
    if not made.command or "://" in made.command:
        return made.command
    return f"cd {shlex.quote(str(made.folder))} && {made.command}"
