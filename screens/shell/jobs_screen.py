"""The list of jobs: what runs in the background, how far it is, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from screens.shell.jobs_line import job_line
from screens.widgets.box_screen import BoxScreen
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.key_texts import key
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content
from workbench.errors import WorkbenchError
from workbench.units import clock

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.shell.jobs import Job, JobState
    from screens.workbench import Workbench

_SECONDS = 0.5
_LOOKS: dict[JobState, tuple[str, str]] = {
    "waiting": (GLYPHS.ring, "foreground"),
    "running": (GLYPHS.half, "accent"),
    "finished": (GLYPHS.dot, "success"),
    "failed": (GLYPHS.dot, "error"),
    "stopped": (GLYPHS.ring, "foreground"),
}


class JobsScreen(BoxScreen[None]):
    """The jobs of this terminal, the newest first, below the live run."""

    NAME: ClassVar[str] = "Jobs"
    GUIDE: ClassVar[str] = (
        "Downloads, counts, exports, evaluations and servers run in the background of this terminal; closing it ends "
        "them. A run trains in the engine and is controlled on Train; replies that it samples are a job, too. Enter "
        "shows the result of a job, or what it is about; x stops a job; d removes one that is over from the list."
    )
    DEFAULT_CSS = """
    JobsScreen > VerticalGroup { width: 100; }
    JobsScreen Paragraph { height: auto; }
    JobsScreen OptionList, JobsScreen OptionList:focus {
        height: auto; max-height: 14; border: none; background: $surface; padding: 0; margin: 1 0;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "stop", "Stop", id="jobs.stop", tooltip="Stop the job; an evaluation keeps what it has found"),
        Binding("d,delete", "remove", "Delete", id="jobs.remove", tooltip="Remove a job that is over from the list"),
        Binding("escape,q,f9", "leave", "Back", id="jobs.leave"),
    ]

    def __init__(self, app: Workbench) -> None:
        super().__init__()
        self._workbench = app
        self._jobs: list[Job] = []
        self._lines: list[Content] = []
        self._run = Paragraph(id="run")
        self._list = OptionList()
        self._about = Paragraph(id="about")

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Jobs"
            box.border_subtitle = f"{ENTER} result   x stop   d remove   Esc back"
            yield self._run
            yield self._list
            yield self._about

    def on_mount(self) -> None:
        self._list.focus()
        self._show()
        self.set_interval(_SECONDS, self._show)

    # -- what is shown --------------------------------------------------------------------------------------------

    def _show(self) -> None:
        before = self._selected
        self._jobs = self._workbench.jobs.all[::-1]
        lines = [_row(job) for job in self._jobs]
        if len(lines) != len(self._lines) or not all(a.is_same(b) for a, b in zip(lines, self._lines, strict=True)):
            self._lines = lines
            self._list.clear_options()
            self._list.add_options(Option(line) for line in lines)
            if lines:
                at = self._jobs.index(before) if before in self._jobs else 0
                self._list.highlighted = at
        self._list.display = bool(lines)
        self._run.show_or_hide(self._run_line())
        self._show_selected()

    @on(OptionList.OptionHighlighted)
    def _show_selected(self) -> None:
        job = self._selected
        if job is None:
            text = plain_content("No jobs. Downloads, exports and evaluations are listed here.", "$text-muted")
        else:
            detail = job.progress.detail if job.progress is not None and not job.is_over else ""
            text = plain_content(job.outcome or detail, "$error" if job.state == "failed" else "", lines=True)
        self._about.show_or_hide(text)
        self.refresh_bindings()

    def _run_line(self) -> Content:
        """The live run, with the phase that it is in."""
        session = self._workbench.session
        summary = session.summary
        if not session.is_live or summary is None:
            return Content("")
        steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else ""
        words = f" {GLYPHS.separator} ".join(part for part in (summary.phase or "starting", steps) if part)
        name = plain(session.names.of(summary.id))
        return Content.assemble(
            (f"{GLYPHS.half} ", "$accent"),
            (f"run {name}", "bold"),
            f"  {words}",
            (f"  {key('tab.train')} Train", "$text-muted"),
        )

    @property
    def _selected(self) -> Job | None:
        at = self._list.highlighted
        return self._jobs[at] if at is not None and at < len(self._jobs) else None

    # -- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        job = self._selected
        if action == "stop":
            return job is not None and not job.is_over
        if action == "remove":
            return job is not None and job.is_over
        return True

    def action_stop(self) -> None:
        """Stop the selected job."""
        if (job := self._selected) is not None and not job.is_over:
            try:
                job.stop()
            except WorkbenchError as error:
                self._workbench.show_error(error)

    def action_remove(self) -> None:
        """Remove the selected job, which is over, from the list."""
        if (job := self._selected) is not None:
            self._workbench.jobs.remove(job)
            self._show()

    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        """Show the result of the selected job, or what it is about."""
        if (job := self._selected) is not None and job.open_result is not None:
            self.dismiss(None)
            self.app.call_later(job.open_result)

    def action_leave(self) -> None:
        """Close the list."""
        self.dismiss(None)


def _row(job: Job) -> Content:
    mark, color = _LOOKS[job.state]
    head = Content.styled(f"{mark} ", f"${color}")
    if not job.is_over:
        return head + job_line(job)
    words = f"{job.state}  after {clock(job.seconds)}"
    return Content.assemble(head, (f"{plain(job.title)}  ", "bold"), (words, f"${color}"))
