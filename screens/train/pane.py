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
from screens.queue import enqueue as lining_up
from screens.queue import start_checks as room
from screens.run_names import titled
from screens.shell import run_words
from screens.shell.live_run import Story
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
from screens.widgets.units import clock
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.planning.queue import Line, Queue
from workbench.runs.folder import RunFolder, RunSummary, all_runs, summarise
from workbench.runs.step_times import StepTimes

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from workbench.engine.client.protocol import EngineStatus
    from workbench.storage.paths import Home


_SECONDS_BETWEEN_READS = 0.5

# A longer reason why the run stands still has the line of notices.
_SHORT = 50

# Cells of a title beside the curve.
_SIDE_TITLE = 34


class TrainPane(RunControlPane):
    """The live run, or the one that was live last; without either, what Enter would start."""

    NAME = "Train"
    GUIDE = (
        "Enter starts a run with the recipe in hand. It trains in the engine, a process of its own: closing this "
        "terminal does not end it, and a terminal opened later shows it from its first step and has the same keys. "
        "What is asked of the run is done between two steps, and the line under the figures says after which one. "
        "g lets a run go on that was paused, stopped or interrupted; s ends it and keeps its adapter, S keeps nothing, "
        "K kills an engine that does not obey; l shows what the libraries print. "
        "The line under the figures says where a step's time goes. MFU is what the model needs, as a share of the "
        "GPU's peak; HFU counts what checkpointing computes again. Where no peak is known there is TFLOP/s instead."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", id="train.start", tooltip="Fine-tune with the recipe in hand"),
        Binding("enter", "line_up", "Next", id="train.line_up", tooltip="Let the recipe in hand run after this one"),
        *CONTROLS,
        Binding("q", "queue", "Queue", id="train.queue", tooltip="What waits: line up, sort, hold"),
        Binding("d", "gpus", "GPUs", id="train.gpus", tooltip="Which GPUs the next run is to use"),
        Binding("l", "log", "Log", id="train.log", tooltip="Show or hide what the libraries print"),
        Binding("v", "replies", "Replies", id="train.replies", tooltip="How the sampled replies change"),
        Binding("y", "copy", "Copy error", id="train.copy", tooltip="Copy why the run failed to the clipboard"),
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
        if self._story is not None:
            self.run_worker(self._catch_up(self._story))
        else:
            self.run_worker(self._look_back())
        self._show_hardware()
        self.draw()

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        self._follow_status(message.status)
        if self._story is not None and not self._is_live(self._story):
            # The app reads on for a live run; what a dead one said last, or did not say, is read here.
            self.run_worker(self._catch_up(self._story))
        self.draw()

    @on(JournalGrew)
    async def _run_went_on(self, message: JournalGrew) -> None:
        if self._story is not None and message.run == self._story.run.id:
            await self._story.add(message.events)
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
        if self._story is None or self._story.run != run:
            self._story, self._asked = Story(run), ""
            self.run_worker(self._catch_up(self._story))

    async def _look_back(self) -> None:
        """The newest run of this home: where it broke off, the first thing to offer is to go on. And what waits."""
        self._newest, self._queued = await asyncio.to_thread(_left_behind, self.session.home)
        self.draw()

    def _is_live(self, story: Story) -> bool:
        status = self.session.status
        return status is not None and status.run == story.run.id

    async def _catch_up(self, story: Story) -> None:
        def show() -> None:
            # Nothing is left to draw on while the app ends.
            if story is self._story and self.app.is_running:
                self.draw()

        await story.catch_up(show)
        show()

    # -- what the user does ---------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that cannot be used are not offered: what can be done follows from the engine's state."""
        status = self.session.status
        busy = status is not None and status.state != "idle"
        match action:
            case "start":
                return not self.session.is_live and (None if busy or self._asking else True)
            case "line_up":
                return self.session.is_live and (None if self._asking else True)
            case "go_on" if not self.session.is_live:
                return self._to_resume is not None and (None if busy or self._asking else True)
            case "gpus":
                return len(self.session.gpus) > 1 and not self.session.is_live
            case "replies":
                return self._story is not None and bool(self._story.samples)
            case "log":
                return self._story is not None
            case "copy":
                return self._story is not None and self._story.error is not None
        return super().check_action(action, parameters)

    def action_start(self) -> None:
        """Fine-tune with the recipe in hand."""
        self._asking = True
        self.refresh_bindings()
        self.run_worker(self._start())

    async def _start(self) -> None:
        try:
            await self.workbench.start_engine()
            recipe = await room.asked_for(self.workbench, self.session.recipe)
            if recipe is None or not await room.may_lose_replies(self.workbench, recipe):
                return
            run = await self.session.engine.train(recipe, self.session.launch)
        except WorkbenchError as error:
            self.workbench.show_error(error)
        else:
            self._follow(RunFolder(self.session.home.runs / run))
            self.run_worker(self._see_off(self._story))
        finally:
            self._asking = False
            self.draw()

    def action_line_up(self) -> None:
        """Let the recipe in hand run after the live one."""
        self.workbench.attempt(lining_up.offer(self.workbench))

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

    async def _see_off(self, story: Story | None, after: int = -1) -> None:
        """Read a new run's journal until the app does: one that fails at once is never seen live.

        Args:
            after: number of the last event before it went on; what ended it then counts no more.
        """
        while story is not None and story is self._story and not self._is_live(story):
            await self._catch_up(story)
            if story.seq > after and story.is_over:
                break
            await asyncio.sleep(_SECONDS_BETWEEN_READS)

    @property
    def _to_resume(self) -> RunFolder | None:
        """The run that can go on: the one that is shown, else the newest one where it broke off."""
        if self._story is not None:
            return self._story.run if self._story.can_go_on else None
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
            self.run_worker(self._see_off(self._story, seq))
        finally:
            self._asking = False
            self.draw()

    def action_replies(self) -> None:
        """How the replies to the fixed prompts change."""
        if self._story is not None:
            self.app.push_screen(RepliesScreen(self._story))

    def action_log(self) -> None:
        """Show or hide what the libraries print."""
        self.toggle_class("-log")
        self.draw()

    def action_copy(self) -> None:
        """Copy why the run failed to the clipboard."""
        self.app.copy_to_clipboard(self.query_one(Problem).text)
        self.notify("Copied.", timeout=2)

    # -- what is shown --------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Bring every part up to date; each repaints only where it differs."""
        if not self.is_shown or not self.is_attached:
            return
        story = self._story
        self.set_class(story is None, "-empty")
        self.refresh_bindings()
        if story is None:
            newest = self._newest
            called = self.session.names.of(newest.id) if newest is not None else ""
            plan = run_words.plan(self.session.recipe, newest, self.session.launch, called=called)
            self.query_one("#plan", Words).show(Content("\n\n").join([plan, plain_content(self._in_queue, "$warning")]))
            return
        self.query_one(PhaseBar).show(*self._phase(story))
        name = self.session.names.of(story.run.path)
        entitle(self.query_one(LossChart), self._title_of_chart(story, name))
        self.query_one(LossChart).show(
            [Curve("train", story.train), Curve("eval", story.eval, marked=True)],
            end=story.summary.max_steps,
            nothing="" if story.is_over else "The curve begins with the first step.",
        )
        times = StepTimes.of(story.recent)
        self.query_one("#figures", Facts).show(run_words.figures(story, times))
        self.query_one(TimeBar).show(run_words.seconds_a_step(story, times), times.shares)
        about = self.query_one("#about", Facts)
        entitle(about, titled(name, story.run.id, most=_SIDE_TITLE, style=""))
        about.show(run_words.about(story, times))
        self._say("#answer", run_words.answer(story.done, self.asked))
        self._say("#notice", plain_content(self._notice(story)))
        host = story.step.get("host") or {}
        self.query_one(GpuPanel).run_used(
            story.summary.peak_vram or host.get("peak") or 0,
            story.summary.predicted_allocated if story.summary.peak_vram else None,
        )
        if self.has_class("-failed") != (story.error is not None):
            self.set_class(story.error is not None, "-failed")
            if story.error is not None:
                self.query_one(Problem).show(story.error)
        if self.has_class("-log"):
            self.query_one(LogPane).show(story.run.log)

    def _title_of_chart(self, story: Story, name: str) -> Content:
        """What the curve is of; on a narrow terminal, where the panel with its name has no room, whose it is too."""
        title = plain_content(run_words.title_of_curve(story))
        if not self.has_class("-narrow"):
            return title
        return Content(f" {GLYPHS.separator} ").join([titled(name, story.run.id, most=_SIDE_TITLE, style=""), title])

    def _say(self, where: str, words: Content) -> None:
        """A line that takes no room while there is nothing to say."""
        line = self.query_one(where, Words)
        line.display = bool(words)
        line.show(words)

    def _phase(self, story: Story) -> tuple[str, float | None, str]:
        """The phase in a word, how far it has come, and words to it."""
        summary = story.summary
        if story.is_over:
            return summary.state, None, run_words.outcome(story)
        status = self.session.status
        if story.summary.is_open and not self._is_live(story):
            return "reading", story.share, "its journal, for whether it goes on"
        if status is not None and status.stopping:
            return "stopping", None, "the present step is finished first; K kills the engine at once"
        if why := self._why_paused(story):
            return "paused", None, run_words.standing_still(story, "" if len(why) > _SHORT else why)
        steps = f"step {summary.step}/{summary.max_steps}" if summary.max_steps else ""
        if summary.step and summary.phase == "training":
            fraction = summary.step / summary.max_steps if summary.max_steps else None
            return "training", fraction, run_words.dotted(steps, f"ETA {clock(summary.eta_seconds)}")
        phase = story.phase
        if not phase and status is not None and status.progress is not None and self._is_live(story):
            phase = status.progress.model_dump()  # the engine knows more as long as the journal tells none
        return (
            str(phase.get("phase", "starting")),
            phase.get("fraction"),
            run_words.dotted(str(phase.get("detail", "")), steps if summary.step else ""),
        )

    def _why_paused(self, story: Story) -> str:
        """Why the run stands still; empty while it goes on. A full disk cannot tell it in the journal."""
        status = self.session.status
        if status is not None and status.run == story.run.id:
            return status.paused
        return str(story.paused.get("reason", "")) if story.paused else ""

    def _notice(self, story: Story) -> str:
        """What to know most of all: why it stands still where that takes a sentence, else the newest warning."""
        why = self._why_paused(story)
        if len(why) > _SHORT:
            return why
        return self._in_queue or (story.notices[-1] if story.notices else "")

    @property
    def _in_queue(self) -> str:
        """What waits while nothing is live; without an engine, what its file says."""
        status = self.session.status
        if status is None:
            return run_words.in_queue(*self._queued)
        return "" if status.run is not None else run_words.in_queue(status.queued, status.queue_held)


def _left_behind(home: Home) -> tuple[RunSummary | None, tuple[int, str]]:
    """The newest run; how many wait in the queue, and why it is held."""
    line = Line()
    with suppress(WorkbenchError):
        line = Queue(home).read()
    newest = next(iter(all_runs(home)), None)
    return summarise(newest) if newest is not None else None, (len(line.waiting), line.held)
