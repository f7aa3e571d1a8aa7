"""Train: start a run or let one go on, watch it, steer it. What is shown comes from journal and engine alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content

from screens.charts.loss_chart import Curve, LossChart
from screens.messages import JournalGrew, RecipeChanged, ResumeAsked, RunsRenamed, SampleTaken, StatusChanged
from screens.queue import enqueue, start_checks
from screens.run_names import titled
from screens.shell import run_words
from screens.shell.phase_bar import PhaseBar
from screens.shell.sampled_replies import RepliesScreen
from screens.train.gpu_choice import GpuChoiceDialog
from screens.train.gpu_panel import GpuPanel
from screens.train.problem import Problem
from screens.train.run_controls import CONTROLS, RunControlPane
from screens.train.time_bar import TimeBar
from screens.widgets.facts import Facts
from screens.widgets.glyphs import GLYPHS
from screens.widgets.line_painted import Words, entitle
from screens.widgets.log_pane import LogPane
from screens.widgets.pane import beside
from screens.widgets.plain import plain_content
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.planning.queue import Queue, QueueState
from workbench.runs.events import memory_bytes
from workbench.runs.folder import RunFolder, all_runs, summarise
from workbench.runs.live_run import ChartReplay, LiveRun
from workbench.runs.step_times import StepTimes
from workbench.units import clock

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from workbench.engine.client.protocol import EngineStatus
    from workbench.progress import Progress
    from workbench.runs.events import Phase
    from workbench.runs.summary import RunSummary
    from workbench.storage.paths import Home


_SECONDS_BETWEEN_READS = 0.5

# A longer reason for a pause is shown in the line of notices.
_SHORT = 50

# Cells of a title beside the curve.
_SIDE_TITLE = 34


class TrainPane(RunControlPane):
    """The live run, or the one that was live last; without either, what Enter would start."""

    NAME = "Train"
    GUIDE = (
        "Enter starts a run with the current recipe. It trains in the engine, a separate "
        "process: it keeps running when this terminal closes, and a terminal opened later shows "
        "it from the first step and has the same keys. Actions apply between two steps; the line "
        "under the metrics shows after which one. g resumes a paused, stopped or interrupted "
        "run, s stops and saves, S stops and discards, K force-kills an engine that isn't "
        "responding, l shows the library output. The time bar shows where the time of a step "
        "goes. MFU is the model's FLOP/s as a share of the GPU's peak; HFU also counts "
        "recomputation by checkpointing. If the peak is unknown, TFLOP/s is shown instead."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", id="train.start", tooltip="Start training with the current recipe"),
        Binding(
            "enter", "enqueue", "Queue next", id="train.enqueue", tooltip="Queue the current recipe after this run"
        ),
        *CONTROLS,
        Binding("q", "queue", "Queue", id="train.queue", tooltip="Show the queue: add, reorder, hold"),
        Binding("d", "gpus", "GPUs", id="train.gpus", tooltip="Choose the GPUs for the next run"),
        Binding("l", "log", "Log", id="train.log", tooltip="Show or hide the library output"),
        Binding("v", "replies", "Replies", id="train.replies", tooltip="Show the sampled replies step by step"),
        Binding("y", "copy", "Copy error", id="train.copy", tooltip="Copy the error to the clipboard"),
    ]

    def __init__(self, **names: str) -> None:
        super().__init__(**names)
        self._asking = False
        self._newest: RunSummary | None = None
        self._queued = (0, "")

    def compose(self) -> ComposeResult:
        yield PhaseBar()
        with Vertical(id="live"):
            with Vertical(id="course"):
                yield Words(id="plan")
                yield LossChart()
                yield Facts(id="figures")
                yield TimeBar()
                yield Words(id="answer")
                yield Words(id="notice")
            with Vertical(id="side"):
                yield GpuPanel()
                yield Facts(stacked=True, id="about")
        yield Problem()
        yield LogPane()

    def on_mount(self) -> None:
        self.query_one(LossChart).border_title = "loss over steps"
        self.query_one(LogPane).border_title = "engine.log of this run"
        self.query_one("#plan").border_title = "ready"

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width < 100, "-narrow")

    # -- what the app tells ---------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self._follow_status(self.session.status)
        if self._live is not None:
            self.run_worker(self._catch_up(self._live))
        else:
            self.run_worker(self._look_back())
        self._show_hardware()
        self.draw()

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        self._follow_status(message.status)
        if self._live is not None and not self._is_live(self._live.run):
            # The app reads on for a live run; what a dead one said last, or did not say, is read here.
            self.run_worker(self._catch_up(self._live))
        self.draw()

    @on(JournalGrew)
    def _journal_grew(self, message: JournalGrew) -> None:
        if self._live is not None and message.run == self._live.run.id:
            self.draw()

    @on(SampleTaken)
    def _show_hardware(self) -> None:
        if self.session.gpus or self.session.host:
            self.set_class(not self.session.gpus, "-no-gpu")
            status = self.session.status
            self.query_one(GpuPanel).sample(self.session.gpus, self.session.host, status.pid if status else None)

    @on(RecipeChanged)
    @on(RunsRenamed)
    def _recipe_changed(self) -> None:
        self.draw()

    def _follow_status(self, status: EngineStatus | None) -> None:
        if status is not None and status.run is not None:
            folder = Path(status.run_folder) if status.run_folder else self.session.home.runs / status.run
            self._follow(RunFolder(folder))

    def _follow(self, run: RunFolder) -> None:
        """Show this run from its beginning."""
        watched = self.session.live
        if watched is not None and watched.run.id == run.id and watched is not self._live:
            # The app reads its journal: each event is folded once.
            self._live, self._asked = watched, "" if self._live is None or self._live.run.id != run.id else self._asked
        elif self._live is None or self._live.run.id != run.id:
            self._live, self._asked = LiveRun(run), ""
            self.run_worker(self._catch_up(self._live))

    async def _look_back(self) -> None:
        """The newest run of this home: where it broke off, the first thing to offer is to go on. And what waits."""
        self._newest, self._queued = await asyncio.to_thread(_left_behind, self.session.home)
        self.draw()

    def _is_live(self, run: RunFolder) -> bool:
        status = self.session.status
        return status is not None and status.run == run.id

    async def _catch_up(self, live: LiveRun) -> None:
        def show() -> None:
            # Nothing is left to draw on while the app ends.
            if live is self._live and self.app.is_running:
                self.draw()

        # The app's own reading logs a disk that fails; the next call tries again.
        with suppress(OSError):
            await live.catch_up(show)
        show()

    # -- what the user does ---------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that cannot be used are not offered: what can be done follows from the engine's state."""
        status = self.session.status
        busy = status is not None and status.state != "idle"
        match action:
            case "start":
                return not self.session.is_live and (None if busy or self._asking else True)
            case "enqueue":
                return self.session.is_live and (None if self._asking else True)
            case "go_on" if not self.session.is_live:
                return self._to_resume is not None and (None if busy or self._asking else True)
            case "gpus":
                return len(self.session.gpus) > 1 and not self.session.is_live
            case "replies":
                return self._live is not None and bool(self._live.replay.samples)
            case "log":
                return self._live is not None
            case "copy":
                return self._live is not None and self._live.replay.error is not None
        return super().check_action(action, parameters)

    def action_start(self) -> None:
        """Start training with the current recipe."""
        self._asking = True
        self.refresh_bindings()
        self.run_worker(self._start())

    async def _start(self) -> None:
        try:
            await self.workbench.start_engine()
            recipe = await start_checks.asked_for(self.workbench, self.session.recipe)
            if recipe is None or not await start_checks.may_start_with_data(self.workbench, recipe):
                return
            run = await self.session.engine.train(recipe, self.session.launch)
        except WorkbenchError as error:
            self.workbench.show_error(error)
        else:
            self._follow(RunFolder(self.session.home.runs / run))
            self.run_worker(self._see_off(self._live))
        finally:
            self._asking = False
            self.draw()

    def action_enqueue(self) -> None:
        """Let the current recipe run after the live one."""
        self.workbench.attempt(enqueue.offer(self.workbench))

    def action_queue(self) -> None:
        """What waits."""
        self.workbench.action_queue()

    def action_gpus(self) -> None:
        """Choose the GPUs of the next run."""
        chosen = self.session.launch.devices if self.session.launch else (self.session.gpus[0].index,)
        self.app.push_screen(GpuChoiceDialog(self.session.gpus, chosen), self._take_gpus)

    def _take_gpus(self, devices: tuple[int, ...] | None) -> None:
        if devices is not None:
            is_first = devices == (self.session.gpus[0].index,)
            self.session.launch = None if is_first else Launch.on(devices)
            self.draw()

    async def _see_off(self, live: LiveRun | None, after: int = -1) -> None:
        """Read a new run's journal until the app does: one that fails at once is never seen live.

        Args:
            after: number of the last event before it went on; what ended it then counts no more.
        """
        while live is not None and live is self._live and not self._is_live(live.run):
            await self._catch_up(live)
            if live.replay.seq > after and live.replay.is_over:
                break
            await asyncio.sleep(_SECONDS_BETWEEN_READS)

    @property
    def _to_resume(self) -> RunFolder | None:
        """The run that can go on: the one that is shown, else the newest one where it broke off."""
        if self._live is not None:
            return self._live.run if self._live.replay.summary.can_be_resumed else None
        if self._newest is not None and self._newest.state == "interrupted":
            return RunFolder(self.session.home.runs / self._newest.id)
        return None

    def action_go_on(self) -> None:
        """Let a run go on that was paused, stopped, interrupted, or failed."""
        if self.session.is_live:
            super().action_go_on()
        elif (run := self._to_resume) is not None:
            self.resume(run)

    @on(ResumeAsked)
    def _resume_asked(self, message: ResumeAsked) -> None:
        self.resume(message.run)

    def resume(self, run: RunFolder) -> None:
        """Let a run go on from its last checkpoint, and show it."""
        self._asking = True
        self.refresh_bindings()
        self.run_worker(self._resume(run))

    async def _resume(self, run: RunFolder) -> None:
        try:
            await self.workbench.start_engine()
            _, seq = await self.session.engine.resume(run.id)
        except WorkbenchError as error:
            self.workbench.show_error(error)
        else:
            self._follow(run)
            self.run_worker(self._see_off(self._live, seq))
        finally:
            self._asking = False
            self.draw()

    def action_replies(self) -> None:
        """How the replies to the fixed prompts change."""
        if self._live is not None:
            self.app.push_screen(RepliesScreen(self._live))

    def action_log(self) -> None:
        """Show or hide the library output."""
        self.toggle_class("-log")
        self.draw()

    def action_copy(self) -> None:
        """Copy the error to the clipboard."""
        self.app.copy_to_clipboard(self.query_one(Problem).text)
        self.notify("Copied.", timeout=2)

    # -- what is shown --------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Bring every part up to date; each repaints only where it differs."""
        if not self.is_shown or not self.is_attached:
            return
        self.set_class(self._live is None, "-empty")
        self.refresh_bindings()
        if self._live is None:
            newest = self._newest
            called = self.session.names.of(newest.id) if newest is not None else ""
            plan = run_words.plan(self.session.recipe, newest, self.session.launch, called=called)
            self.query_one("#plan", Words).show(Content("\n\n").join([plan, plain_content(self._in_queue, "$warning")]))
            return
        run = self._live.replay
        self.query_one(PhaseBar).show(*self._phase(run))
        name = self.session.names.of(run.run.path)
        entitle(self.query_one(LossChart), self._title_of_chart(run, name))
        self.query_one(LossChart).show(
            [Curve("train", run.curves.train), Curve("eval", run.curves.held_out, marked=True)],
            end=run.summary.max_steps,
            nothing="" if run.is_over else "Loss appears after step 1.",
        )
        times = StepTimes.of(run.recent)
        self.query_one("#figures", Facts).show(run_words.figures(run, times))
        self.query_one(TimeBar).show(run_words.seconds_a_step(run, times), times.shares)
        about = self.query_one("#about", Facts)
        entitle(about, titled(name, run.run.id, most=_SIDE_TITLE, style=""))
        about.show(run_words.about(run, times))
        self._say("#answer", run_words.answer(run.last_request, self.asked))
        self._say("#notice", plain_content(self._notice(run)))
        self.query_one(GpuPanel).run_used(
            run.summary.peak_vram or memory_bytes(run.step.host if run.step is not None else None, "peak"),
            run.summary.predicted_allocated if run.summary.peak_vram else None,
        )
        if self.has_class("-failed") != (run.error is not None):
            self.set_class(run.error is not None, "-failed")
            if run.error is not None:
                self.query_one(Problem).show(run.error)
        if self.has_class("-log"):
            self.query_one(LogPane).show(run.run.log)

    def _title_of_chart(self, run: ChartReplay, name: str) -> Content:
        """What the curve is of; on a narrow terminal, where the panel with its name has no room, whose it is too."""
        title = plain_content(run_words.title_of_curve(run))
        if not self.has_class("-narrow"):
            return title
        return Content(f" {GLYPHS.separator} ").join([titled(name, run.run.id, most=_SIDE_TITLE, style=""), title])

    def _say(self, where: str, words: Content) -> None:
        """A line that takes no room while there is nothing to say."""
        line = self.query_one(where, Words)
        line.display = bool(words)
        line.show(words)

    def _phase(self, run: ChartReplay) -> tuple[str, float | None, str]:
        """The phase in a word, how far it has come, and words to it."""
        summary = run.summary
        if run.is_over:
            return summary.state, None, run_words.outcome(run)
        status = self.session.status
        if run.summary.is_open and not self._is_live(run.run):
            return "reading", run.share_read, "its journal: is it still running?"
        if status is not None and status.stopping:
            return "stopping", None, "finishing this step; K force-kills the engine"
        if why := self._why_paused(run):
            return "paused", None, run_words.standing_still(run, "" if len(why) > _SHORT else why)
        steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else ""
        if summary.step and summary.phase == "training":
            fraction = summary.step / summary.max_steps if summary.max_steps else None
            return "training", fraction, run_words.dotted(steps, f"ETA {clock(summary.eta_seconds)}")
        phase: Phase | Progress = run.phase
        if not phase.phase and status is not None and status.progress is not None and self._is_live(run.run):
            phase = status.progress  # the engine knows more as long as the journal has no phase
        detail = run_words.dotted(phase.detail, steps if summary.step else "")
        return phase.phase or "starting", phase.fraction, detail

    def _why_paused(self, run: ChartReplay) -> str:
        """Why the run is paused; empty while it runs. A full disk cannot be recorded in the journal."""
        status = self.session.status
        if status is not None and status.run == run.run.id:
            return status.paused
        return run.paused.reason if run.paused else ""

    def _notice(self, run: ChartReplay) -> str:
        """The most important notice: why the run is paused if that takes a sentence, else the newest warning."""
        why = self._why_paused(run)
        if len(why) > _SHORT:
            return why
        return self._in_queue or (run.notices[-1] if run.notices else "")

    @property
    def _in_queue(self) -> str:
        """What waits while nothing is live; without an engine, what its file says."""
        status = self.session.status
        if status is None:
            return run_words.in_queue(*self._queued)
        return "" if status.run is not None else run_words.in_queue(status.queued, status.queue_held)


def _left_behind(home: Home) -> tuple[RunSummary | None, tuple[int, str]]:
    """The newest run; how many wait in the queue, and why it is held."""
    line = QueueState()
    with suppress(WorkbenchError):
        line = Queue(home).read()
    newest = next(iter(all_runs(home)), None)
    return summarise(newest) if newest is not None else None, (len(line.waiting), line.held)
