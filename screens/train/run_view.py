"""The view of a run on Train: phase, curve, metrics, hardware, error and log; without a run, what Enter would start."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from textual.containers import Vertical, VerticalScroll
from textual.content import Content

from screens.charts.chart_grid import ChartGrid
from screens.run_names import titled
from screens.shell import run_words
from screens.shell.header import BETWEEN_STEPS
from screens.shell.phase_bar import PhaseBar
from screens.train.checklist import checklist
from screens.train.gpu_panel import GpuPanel
from screens.train.problem import Problem
from screens.train.time_bar import TimeBar
from screens.widgets.facts import Facts
from screens.widgets.glyphs import GLYPHS
from screens.widgets.log_pane import LogPane
from screens.widgets.pane import beside
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain_content
from screens.widgets.sizes import NARROW_BELOW, ROOMY_FROM
from workbench.runs.events import memory_bytes
from workbench.runs.step_times import StepTimes
from workbench.units import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

    from workbench.engine.client.protocol import EngineStatus
    from workbench.machine.gpu import GpuSample
    from workbench.machine.host import HostSample
    from workbench.progress import Progress
    from workbench.runs.events import Phase
    from workbench.runs.live_run import ChartReplay

# A longer reason for a pause is shown in the line of notices.
_SHORT = 50

# Cells of a title beside the curve.
_SIDE_TITLE = 34


# Less high, two rows of charts would have too few lines each.
_HEIGHT_OF_A_GRID = 30


class _ChartOptions(TypedDict):
    end: float
    placeholder: str


class RunView(Vertical):
    """One run. Each part repaints only what has changed."""

    DEFAULT_CSS = beside(__file__)

    def __init__(self) -> None:
        super().__init__()
        self._phase = PhaseBar()
        self._card = Paragraph(id="card")
        self._plan = VerticalScroll(self._card, id="plan")
        self._checklist = Paragraph(id="checklist")
        self._charts = ChartGrid()
        self._chart = self._charts.main
        self._metrics = Facts(id="figures")
        self._times = TimeBar()
        self._answer = Paragraph(id="answer")
        self._notice = Paragraph(id="notice")
        self._gpu = GpuPanel()
        self._about = Facts(stacked=True, id="about")
        self._problem = Problem()
        self._log = LogPane()
        self._run: ChartReplay | None = None
        self._chart_options = _ChartOptions(end=0.0, placeholder="")
        self._run_name = ""

    def compose(self) -> ComposeResult:
        self._chart.border_title = "loss over steps"
        self._log.border_title = "engine.log of this run"
        self._plan.border_title = "next run"
        self._checklist.border_title = "start"
        yield self._phase
        with Vertical(id="live"):
            yield Vertical(
                self._plan,
                self._checklist,
                self._charts,
                self._metrics,
                self._times,
                self._answer,
                self._notice,
                id="course",
            )
            yield Vertical(self._gpu, self._about, id="side")
        yield self._problem
        yield self._log

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < NARROW_BELOW, "-narrow")
        is_roomy = event.size.width >= ROOMY_FROM and event.size.height >= _HEIGHT_OF_A_GRID
        if is_roomy != self._charts.has_class("-roomy"):
            self._charts.set_class(is_roomy, "-roomy")
            if self._run is not None:
                self._charts.show_run(self._run.curves, **self._chart_options)

    @property
    def error_text(self) -> str:
        """The error that is shown, to be copied."""
        return self._problem.text

    def use_chart(self, action: str) -> None:
        """Change the view of the chart."""
        self._charts.act(action)
        if self._run is not None:
            set_title(self._chart, self._title_of_chart(self._run, self._run_name))

    def toggle_log(self) -> None:
        """Show or hide the library output."""
        self.toggle_class("-log")

    def show_card(self, card: Content) -> None:
        """Show what Enter would start, in place of a run."""
        self.set_class(True, "-empty")
        self.remove_class("-failed", "-log")
        self._card.show(card)

    def show_hardware(
        self, gpus: Sequence[GpuSample], host: HostSample | None, engine_pid: int | None, *, is_live: bool
    ) -> None:
        """Show a new reading of the hardware."""
        self.set_class(not gpus, "-no-gpu")
        self._gpu.sample(gpus, host, engine_pid, is_live=is_live)

    def show_run(
        self, run: ChartReplay, status: EngineStatus | None, *, name: str, requested: str, in_queue: str
    ) -> None:
        """Show what the journal and the engine say of a run.

        Args:
            run: the run as read from its journal.
            status: the engine's; None without an engine.
            name: the run's name.
            requested: what was requested of the run and is not done yet, in words.
            in_queue: how many runs are queued, in words.
        """
        self.set_class(False, "-empty")
        self._phase.show(*phase_of(run, status))
        starts = bool(run.phase.phase) and not run.recent and not run.is_partial
        self.set_class(starts, "-starting")
        if starts:
            evaluates = bool((run.facts.counts or {}).get("eval", True))
            self._checklist.show(checklist(run.startup.stages(evaluates=evaluates), is_over=run.is_over))
        set_title(self._chart, self._title_of_chart(run, name))
        self._run, self._run_name = run, name
        self._chart_options = _ChartOptions(
            end=run.summary.max_steps, placeholder="" if run.is_over else "Loss appears after step 1."
        )
        self._charts.show_run(run.curves, **self._chart_options)
        times = StepTimes.of(run.recent)
        self._metrics.show(run_words.figures(run, times))
        self._times.show(run_words.seconds_a_step(run, times), times.shares)
        set_title(self._about, titled(name, run.run.id, most=_SIDE_TITLE, style=""))
        self._about.show(run_words.about(run, times))
        self._answer.show_or_hide(run_words.answer(run.last_request, requested))
        self._notice.show_or_hide(plain_content(_notice_of(run, status, in_queue)))
        self._gpu.run_used(
            run.summary.peak_vram or memory_bytes(run.step.host if run.step is not None else None, "peak"),
            run.summary.predicted_allocated if run.summary.peak_vram else None,
        )
        if self.has_class("-failed") != (run.error is not None):
            self.set_class(run.error is not None, "-failed")
            if run.error is not None:
                self._problem.show(run.error)
        if self.has_class("-log"):
            self._log.show(run.run.log)

    def _title_of_chart(self, run: ChartReplay, name: str) -> Content:
        """Return the title of the curve; on a narrow terminal, which has no other place for it, with the run's name."""
        title = plain_content(run_words.title_of_curve(run, self._chart.quantity))
        if not self.has_class("-narrow"):
            return title
        return Content(f" {GLYPHS.separator} ").join([titled(name, run.run.id, most=_SIDE_TITLE, style=""), title])


def phase_of(run: ChartReplay, status: EngineStatus | None) -> tuple[str, float | None, str]:
    """Return a run's phase in a word, the fraction done (None if unknown), and more in words."""
    summary = run.summary
    is_live = status is not None and status.run == run.run.id
    if run.is_over:
        return summary.state, None, run_words.outcome(run)
    # A process that is gone may have written the run's end into what is still to be read.
    is_unknown = summary.is_state_unknown or (run.is_partial and summary.has_lost_its_writer)
    if is_unknown and not is_live:
        return "reading", run.share_read, "its journal: is it still running?"
    if status is not None and status.stopping:
        return "stopping", None, "finishing this step; K force-kills the engine"
    steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else ""
    why = _why_paused(run, status)
    if why and run.phase.phase not in BETWEEN_STEPS:
        return "paused", None, run_words.standing_still(run, "" if len(why) > _SHORT else why)
    if summary.step and summary.phase == "training":
        fraction = summary.step / summary.max_steps if summary.max_steps else None
        return "training", fraction, run_words.dotted(steps, f"ETA {clock(summary.eta_seconds)}")
    phase: Phase | Progress = run.phase
    if not phase.phase and is_live and status is not None and status.progress is not None:
        phase = status.progress  # the engine knows more until the journal has a phase
    eta = f"ETA {clock(phase.eta_seconds)}" if phase.eta_seconds else ""
    detail = run_words.dotted(phase.detail, eta, steps if summary.step else "", "still paused" if why else "")
    return phase.phase or "starting", phase.fraction, detail


def _why_paused(run: ChartReplay, status: EngineStatus | None) -> str:
    """Return why a run is paused, or an empty string. A full disk is not in the journal: the engine has to say it."""
    if status is not None and status.run == run.run.id:
        return status.paused
    return run.paused.reason if run.paused else ""


def _notice_of(run: ChartReplay, status: EngineStatus | None, in_queue: str) -> str:
    """Return the most important notice: a long reason for a pause, else the queue, else the newest warning."""
    why = _why_paused(run, status)
    if len(why) > _SHORT:
        return why
    return in_queue or (run.notices[-1] if run.notices else "")
