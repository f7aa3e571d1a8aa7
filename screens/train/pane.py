"""Train: start or resume a run, watch it and control it. All that is shown comes from its journal and the engine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType

from screens.charts.keys import chart_keys
from screens.dialogs.questions import LineDialog
from screens.messages import (
    JournalGrew,
    RecipeChanged,
    ResumeAsked,
    RunsRenamed,
    SampleTaken,
    SkeletonChanged,
    StatusChanged,
)
from screens.queue import enqueue
from screens.shell.run_words import in_queue
from screens.shell.sampled_replies import RepliesScreen
from screens.train.gpu_choice import GpuChoiceDialog
from screens.train.gpu_monitor import GpuMonitor
from screens.train.run_controls import CONTROLS, RunControls
from screens.train.run_starter import RunStarter
from screens.train.run_view import RunView
from screens.train.start_card import start_card
from screens.train.start_check import StartCheck
from screens.widgets.pane import Pane
from workbench.errors import WorkbenchError
from workbench.planning.launch import Launch
from workbench.planning.queue import Queue, QueueState
from workbench.runs.folder import RunFolder, all_runs, summarise
from workbench.runs.live_run import LiveRun

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from workbench.engine.client.protocol import EngineStatus
    from workbench.recipe.schema import Recipe
    from workbench.runs.summary import RunSummary
    from workbench.storage.paths import Home


_SECONDS_BETWEEN_READS = 0.5


class TrainPane(Pane):
    """The live run, else the one that was live last, else what Enter would start.

    Attributes:
        shown_run: the run that is shown, live or over; None if there is none.
    """

    NAME = "Train"
    GUIDE = (
        "Without a run to show, the start card says what {train.start} starts, what it needs and how long it takes; "
        "what is wrong is red, with the key that cures it. Esc shows the card instead of a run that is over. A run "
        "trains in the engine, a separate process: it keeps running when this terminal closes, and a terminal opened "
        "later shows it from the first step and has the same keys. Actions apply between two steps; the line under "
        "the metrics shows after which one. {run.resume} resumes a paused, stopped or interrupted run, {run.stop} "
        "stops and saves, {run.discard} stops and discards, {run.kill} force-kills an engine that isn't responding, "
        "{train.log} shows the library output. The chart: {chart.next} and {chart.previous} show other quantities, "
        "{chart.rougher} and {chart.smoother} smooth, {chart.log} makes the axis logarithmic, the arrows or a click "
        "read the values at a step, {chart.in} {chart.out} and {chart.whole} zoom. The time bar shows where the time "
        "of a step goes. MFU is the model's FLOP/s as a share of the GPU's peak; HFU also counts recomputation by "
        "checkpointing. If the peak is unknown, TFLOP/s is shown instead."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start", id="train.start", tooltip="Start training with the current recipe"),
        Binding(
            "enter", "enqueue", "Queue next", id="train.enqueue", tooltip="Queue the current recipe after this run"
        ),
        Binding("N", "name", "Name", id="train.name", tooltip="Name the next run; a number is appended"),
        *CONTROLS.values(),
        Binding("F", "fit", "Make it fit", id="train.fit", tooltip="Apply the change that makes the recipe work here"),
        Binding("q", "queue", "Queue", id="train.queue", tooltip="Show the queue: add, reorder, hold"),
        Binding(
            "G",
            "gpus",
            "GPUs",
            show=False,
            key_display="G",
            id="train.gpus",
            tooltip="Show the GPUs, their history and who uses them",
        ),
        Binding("l", "log", "Log", id="train.log", tooltip="Show or hide the library output"),
        Binding("v", "replies", "Replies", id="train.replies", tooltip="Show the sampled replies step by step"),
        Binding("y", "copy", "Copy error", id="train.copy", tooltip="Copy the error to the clipboard"),
        *chart_keys(),
        Binding("escape", "card", "Next run", id="train.card", tooltip="Show what Enter starts, instead of this run"),
    ]

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self.shown_run: LiveRun | None = None
        self._newest: RunSummary | None = None
        self._queued = (0, "")
        self._view = RunView()
        self._controls = RunControls(self.workbench, lambda: self.shown_run, self.draw)
        self._starter = RunStarter(self.workbench, self.draw, self._run_started)
        self._check = StartCheck(self, self.draw)
        # The recipe as of the last time that the shown run was live: after a change the start card is of more use.
        self._recipe_of_run: Recipe | None = None

    def compose(self) -> ComposeResult:
        yield self._view

    # -- messages of the app --------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self._follow_status(self.session.status)
        self._check.look_again()
        self._leave_old_run()
        if self.shown_run is not None:
            self.run_worker(self._catch_up(self.shown_run))
        else:
            self.run_worker(self._read_newest())
        self._show_hardware()
        self.draw()

    @on(StatusChanged)
    def _engine_changed(self, message: StatusChanged) -> None:
        self._follow_status(message.status)
        if self.shown_run is not None and not self._is_live(self.shown_run.run):
            # The app reads the journal of a live run only; the last events of one that died are read here.
            self.run_worker(self._catch_up(self.shown_run))
        self.draw()

    @on(JournalGrew)
    def _journal_grew(self, message: JournalGrew) -> None:
        if self.shown_run is not None and message.run == self.shown_run.run.id:
            self.draw()

    @on(SampleTaken)
    def _show_hardware(self) -> None:
        session = self.session
        if session.gpus or session.host:
            engine = session.status.pid if session.status else None
            self._view.show_hardware(session.gpus, session.host, engine, is_live=session.is_live)
        if self.shown_run is None and self.is_shown:
            self._check.update()

    @on(SkeletonChanged)
    @on(RunsRenamed)
    def _redraw(self) -> None:
        self.draw()

    @on(RecipeChanged)
    def _recipe_changed(self) -> None:
        self._leave_old_run()
        self.draw()

    def _leave_old_run(self) -> None:
        """Show the start card instead of a run that is over, once the recipe was changed."""
        is_changed = self._recipe_of_run is not None and self._recipe_of_run is not self.session.recipe
        if self.shown_run is not None and self.shown_run.replay.is_over and not self.session.is_live and is_changed:
            self.action_card()

    # -- the run that is shown ------------------------------------------------------------------------------------

    def _follow_status(self, status: EngineStatus | None) -> None:
        if status is not None and status.run is not None:
            folder = Path(status.run_folder) if status.run_folder else self.session.home.runs / status.run
            self._follow(RunFolder(folder))
            self._recipe_of_run = self.session.recipe

    def _follow(self, run: RunFolder) -> None:
        """Show a run from its first step."""
        is_other = self.shown_run is None or self.shown_run.run.id != run.id
        self.shown_run = self.session.follow(run)
        if is_other:
            self.run_worker(self._catch_up(self.shown_run))
            self._controls.forget()

    async def _read_newest(self) -> None:
        """Read the newest run of this home, which may be resumed, and the queue."""
        self._newest, self._queued = await asyncio.to_thread(_newest_and_queued, self.session.home)
        self.draw()

    def _is_live(self, run: RunFolder) -> bool:
        status = self.session.status
        return status is not None and status.run == run.id

    async def _catch_up(self, live: LiveRun) -> None:
        def show() -> None:
            if live is self.shown_run:
                self.draw()

        # The app's own reading logs a disk that fails; the next call tries again.
        with suppress(OSError):
            await live.catch_up(show)
        show()

    async def _read_until_live(self, live: LiveRun | None, after: int) -> None:
        """Read a new run's journal until the app does: the app never sees a run live that fails at once.

        Args:
            after: the number of the last event before the run was resumed; an end before it does not count.
        """
        while live is not None and live is self.shown_run and not self._is_live(live.run):
            await self._catch_up(live)
            if live.replay.seq > after and live.replay.is_over:
                break
            await asyncio.sleep(_SECONDS_BETWEEN_READS)

    # -- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the keys that can be used now."""
        shown = self.shown_run
        match action, parameters:
            case "start", _:
                return not self.session.is_live and self._starter.available
            case "enqueue", _:
                return self.session.is_live and (None if self._starter.is_starting else True)
            case "control", ("resume",) if not self.session.is_live:
                return self._to_resume is not None and self._starter.available
            case "control", (name,):
                return self._controls.available(str(name))
            case "name", _:
                return not self.session.is_live
            case "chart", _:
                return shown is not None
            case "fit", _:
                return shown is None and self._check.findings.fix is not None
            case "card", _:
                return shown is not None and not self.session.is_live
            case "replies", _:
                return shown is not None and bool(shown.replay.samples)
            case "log", _:
                return shown is not None
            case "copy", _:
                return shown is not None and shown.replay.error is not None
        return True

    def action_control(self, name: str) -> None:
        """Use a control of the live run; without one, ``resume`` resumes the run that is shown."""
        if name != "resume" or self.session.is_live:
            self._controls.use(name)
        elif (run := self._to_resume) is not None:
            self._starter.resume(run)

    def action_start(self) -> None:
        """Start training with the current recipe."""
        self._starter.start()

    def action_enqueue(self) -> None:
        """Queue the current recipe after the live run."""
        self.workbench.attempt(enqueue.offer(self.workbench), asks=True)

    def action_queue(self) -> None:
        """Show the queue."""
        self.workbench.action_queue()

    def action_name(self) -> None:
        """Ask for the name of the next run."""

        def typed(name: str | None) -> None:
            if name is not None:
                self.workbench.set_recipe({"output.name": name.strip()})

        text = "A number is appended: pirate becomes pirate-01, then pirate-02."
        dialog = LineDialog("Name of the next run", text, self.session.recipe.output.name, check=self._name_problem)
        self.app.push_screen(dialog, typed)

    def _name_problem(self, name: str) -> str:
        from workbench.recipe.text import RecipeError, edit

        try:
            edit(self.session.recipe, {"output.name": name.strip()})
        except RecipeError:
            return "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit."
        return ""

    def action_chart(self, action: str) -> None:
        """Change the view of the chart."""
        self._view.use_chart(action)

    def action_fit(self) -> None:
        """Apply the change that makes the recipe work here."""
        if (fix := self._check.findings.fix) is not None:
            self.workbench.set_recipe(fix)

    def action_card(self) -> None:
        """Show the start card instead of a run that is over."""
        self.shown_run = None
        self._controls.forget()
        self.run_worker(self._read_newest())
        self.draw()

    def action_gpus(self) -> None:
        """Show the GPUs, and from there choose those for the next run."""
        may_choose = len(self.session.gpus) > 1 and not self.session.is_live

        def answered(chooses: bool | None) -> None:
            if chooses:
                self._choose_gpus()

        self.app.push_screen(GpuMonitor(may_choose=may_choose), answered)

    def _choose_gpus(self) -> None:
        chosen = self.session.launch.devices if self.session.launch else (self.session.gpus[0].device,)
        self.app.push_screen(GpuChoiceDialog(self.session.gpus, chosen), self._take_gpus)

    def _take_gpus(self, devices: tuple[int | str, ...] | None) -> None:
        if devices is not None:
            is_first = devices == (self.session.gpus[0].device,)
            self.session.launch = None if is_first else Launch.on(devices)
            self.draw()

    def action_replies(self) -> None:
        """Show the sampled replies step by step."""
        if self.shown_run is not None:
            self.app.push_screen(RepliesScreen(self.shown_run))

    def action_log(self) -> None:
        """Show or hide the library output."""
        self._view.toggle_log()
        self.draw()

    def action_copy(self) -> None:
        """Copy the error to the clipboard."""
        self.app.copy_to_clipboard(self._view.error_text)
        self.notify("Copied.", timeout=2)

    # -- start and resume -----------------------------------------------------------------------------------------

    @property
    def _to_resume(self) -> RunFolder | None:
        """The run that can be resumed: the one that is shown, else the newest if it was interrupted."""
        if self.shown_run is not None:
            return self.shown_run.run if self.shown_run.replay.summary.can_be_resumed else None
        if self._newest is not None and self._newest.state == "interrupted":
            return RunFolder(self.session.home.runs / self._newest.id)
        return None

    @on(ResumeAsked)
    def _resume_asked(self, message: ResumeAsked) -> None:
        self._starter.resume(message.run)

    def _run_started(self, run: RunFolder, after: int) -> None:
        self._follow(run)
        self._recipe_of_run = self.session.recipe
        self.run_worker(self._read_until_live(self.shown_run, after))

    # -- what is shown --------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Show the run, or what Enter would start."""
        if not self.is_shown or not self.is_attached:
            return
        self.refresh_bindings()
        names = self.session.names
        if self.shown_run is None:
            newest = self._newest
            called = names.of(newest.id) if newest is not None else ""
            self._check.update()
            card = start_card(
                self.session.recipe,
                self._check.findings,
                newest,
                self.session.launch,
                called=called,
                in_queue=self._in_queue,
            )
            self._view.show_card(card)
        else:
            run = self.shown_run.replay
            self._view.show_run(
                run,
                self.session.status,
                name=names.of(run.run.path),
                requested=self._controls.requested,
                in_queue=self._in_queue,
            )

    @property
    def _in_queue(self) -> str:
        """The queue in words while no run is live; without an engine, from its file."""
        status = self.session.status
        if status is None:
            return in_queue(*self._queued)
        return "" if status.run is not None else in_queue(status.queued, status.queue_held)


def _newest_and_queued(home: Home) -> tuple[RunSummary | None, tuple[int, str]]:
    """Read the newest run, how many runs are queued, and why the queue is on hold."""
    queue = QueueState()
    with suppress(WorkbenchError):
        queue = Queue(home).read()
    newest = next(iter(all_runs(home)), None)
    return summarise(newest) if newest is not None else None, (len(queue.waiting), queue.held)
