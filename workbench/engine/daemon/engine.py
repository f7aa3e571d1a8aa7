"""The engine: trains, replies or evaluates in a background thread, one at a time, and refuses further requests."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from workbench import __version__
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import EngineStatus, EvaluateRequest, ReplyRequest
from workbench.engine.daemon import refusals
from workbench.engine.daemon.backend import Backend, EmitReply
from workbench.engine.daemon.occupancy import Occupancy
from workbench.engine.daemon.queue import QueueRunner
from workbench.engine.daemon.torch_backend import TorchBackend
from workbench.engine.daemon.work import EndsWithRun, LiveTraining, Work
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Command, PausedTask
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import write_traceback
from workbench.planning.launch import Launch
from workbench.planning.queue import QueueRequest, QueueState
from workbench.planning.start_checks import check_stored_base
from workbench.progress import Report
from workbench.recipe.fused_kernels import check_kernels
from workbench.recipe.optimizers import check_optimizer
from workbench.recipe.schema import Recipe
from workbench.recipe.text import parse
from workbench.recipe.trackers import check_reporters
from workbench.runs.folder import RunFolder, create_run, find_run, summarise
from workbench.runs.journal import last_seq
from workbench.runs.on_end import call_on_end
from workbench.storage.paths import Home
from workbench.storage.settings import read as read_settings

Cancel = Callable[[], None]
Finished = Callable[[WorkbenchError | None], None]


class Engine:
    """What the API calls. Methods may be called from any thread.

    :meth:`train`, :meth:`resume`, :meth:`change_queue` and :meth:`unload` read and write files or free memory, so the
    API calls them off its event loop; the others return at once.

    Args:
        backend: does the actual work; by default with PyTorch.
    """

    def __init__(self, home: Home, backend: Backend | None = None) -> None:
        self.home = home
        self.backend = TorchBackend(home) if backend is None else backend
        self._started = time.time()
        self.queue = QueueRunner(home, self)
        self._occupancy = Occupancy(self.queue.wake)

    # -- state ----------------------------------------------------------------------------------------------------

    def status(self) -> EngineStatus:
        """The current state. Returns at once, whatever the model is doing."""
        work, training = self._occupancy.work, self.training
        queue = self.queue.state
        memory = self.backend.memory(training)
        return EngineStatus(
            pid=os.getpid(),
            version=__version__,
            started=self._started,
            state=("paused" if training and training.controls.paused else work.state) if work else "idle",
            run=training.run_folder.id if training else None,
            run_folder=str(training.run_folder.path) if training else None,
            stopping=training.controls.is_stopped() if training else False,
            paused=training.controls.paused if training else "",
            progress=training.progress if training else work.progress if work else None,
            model=memory.model,
            device=memory.device,
            allocated=memory.allocated,
            reserved=memory.reserved,
            queued=len(queue.waiting),
            queue_held=queue.held,
        )

    @property
    def is_busy(self) -> bool:
        return self._occupancy.work is not None

    @property
    def is_training(self) -> bool:
        """Whether a run is live or about to start."""
        return (work := self._occupancy.work) is not None and work.state == "training"

    @property
    def training(self) -> LiveTraining | None:
        """The live run."""
        return self._occupancy.training

    @property
    def last_used(self) -> float:
        """When the last work ended, by the monotonic clock."""
        return self._occupancy.last_used

    # -- runs -----------------------------------------------------------------------------------------------------

    def train(
        self, recipe: Recipe, launch: Launch | None = None, *, folder: Callable[[], RunFolder] | None = None
    ) -> RunFolder:
        """Create a run folder and start training in the background, in this process or in those of ``launch``.

        Args:
            folder: creates the run folder, once the engine is known to be free.

        Raises:
            WorkbenchError: the engine is busy, the folder cannot be created, ``launch`` cannot be used here, or the
                base's files quantize it in a way that cannot be trained.
        """
        return self._train(folder or (lambda: create_run(self.home, recipe)), recipe, launch, resume=False)

    def resume(self, name: str, launch: Launch | None = None) -> tuple[RunFolder, int]:
        """Resume a run from its newest complete checkpoint, or from the start if it has none.

        Args:
            launch: the processes to use; by default those that the run was started with.

        Returns:
            The run, and the number of its journal's last event so far.

        Raises:
            WorkbenchError: there is no such run, it is over, or the engine is busy.
        """
        run = find_run(self.home, name)
        recipe = run.recipe()
        state = summarise(run).state
        if state in ("running", "finished"):
            raise refusals.nothing_to_resume(run, is_running=state == "running")
        last = last_seq(run.journal)
        return self._train(lambda: run, recipe, launch or Launch.of(run), resume=True), last

    def _train(
        self, folder: Callable[[], RunFolder], recipe: Recipe, launch: Launch | None, *, resume: bool
    ) -> RunFolder:
        _check(recipe, launch)
        check_stored_base(self.home, recipe)
        work = self._occupancy.claim("training")
        try:
            run = folder()
            if launch is not None:
                launch.save(run)
            self.queue.run_started(run)
            training = self.backend.training(run, recipe, launch, self._training_ended, resume=resume)
            self._occupancy.set_training(work, training)
            training.start()
        except BaseException:
            self._occupancy.release()
            raise
        return run

    def _training_ended(self, training: LiveTraining) -> None:
        """Take the model back, tell the queue, and accept work again, even if one of these fails."""
        steps: tuple[Callable[[], None], ...] = (
            partial(self.backend.take_back, training),
            partial(self.queue.run_ended, training.run_folder, engine_ends=self._occupancy.is_ending),
            partial(self._call_on_end, training.run_folder),
        )
        try:
            for step in steps:
                self._call_logged(step, f"ending run {training.run_folder.id}")
        finally:
            self._occupancy.release()

    def _call_on_end(self, run: RunFolder) -> None:
        """Call the user's command in a thread: neither the queue nor the terminal waits for it."""
        command = read_settings(self.home).on_end
        if command:
            threading.Thread(target=_call_and_log, args=(command, run), name="on_end", daemon=True).start()

    def _call_logged(self, function: Callable[[], None], doing: str) -> None:
        """Call a function; if it raises, write the traceback to the engine's log and continue."""
        try:
            function()
        except Exception as error:
            write_traceback(error, doing, self.home.engine_log)

    def stop(self, *, save: bool) -> None:
        """Stop the live run within one micro-batch.

        Raises:
            WorkbenchError: there is none.
        """
        training = self.training
        if training is None:
            raise refusals.nothing_to_stop()
        training.controls.stop(save=save)

    def control(self, command: Command) -> None:
        """Send a command to the live run, which carries it out between two steps.

        Raises:
            WorkbenchError: no run is live, or the command lacks its value.
        """
        training = self.training
        if training is None:
            raise refusals.nothing_to_control()
        if command.action in ("learning_rate", "max_steps") and command.value is None:
            raise WorkbenchError(f"{command.action} needs a number.", "Give the new value.", kind="bad_request")
        training.controls.send(command)

    def change_queue(self, request: QueueRequest) -> QueueState:
        """Change the queue.

        Raises:
            WorkbenchError: the request cannot be carried out.
        """
        for run in request.runs:
            _check(parse(run.recipe), run.launch)
        training = self.training
        return self.queue.change(request, str(training.run_folder.path) if training else "")

    def end(self) -> None:
        """Accept no more work, and stop and save the live run."""
        self._occupancy.end()

    def unload(self) -> None:
        """Release the model's memory.

        Raises:
            WorkbenchError: the engine is busy.
        """
        self._occupancy.claim("loading")
        try:
            self.backend.unload()
        finally:
            self._occupancy.release()

    # -- replies and evaluations ----------------------------------------------------------------------------------

    def reply(self, request: ReplyRequest, emit: EmitReply, finished: Finished) -> Cancel:
        """Reply in the background: pieces go to ``emit``, then ``finished`` is called once.

        A paused run whose model is still in memory can reply too, with its current weights.

        Returns:
            A function that cancels this reply.

        Raises:
            WorkbenchError: the engine is busy.
        """
        if cancel := self._reply_in_run(request, emit, finished):
            return cancel
        work = self._occupancy.claim("replying")
        return self._in_background(work, lambda: self.backend.reply(work, request, emit), finished)

    def evaluate(
        self,
        request: EvaluateRequest,
        emit: Report,
        saved: Callable[[Path], None],
        finished: Finished,
    ) -> Cancel:
        """Evaluate a run in the background: progress goes to ``emit``, the file with the results to ``saved``.

        Returns:
            A function that cancels this evaluation.

        Raises:
            WorkbenchError: the engine is busy.
        """
        work = self._occupancy.claim("evaluating")
        return self._in_background(work, lambda: saved(self.backend.evaluate(work, request, emit)), finished)

    def _in_background(self, work: Work, do: Callable[[], None], finished: Finished) -> Cancel:
        def run() -> None:
            error: WorkbenchError | None = None
            try:
                do()
            except Exception as problem:
                error = diagnose(problem, f"{work.state} in the background", self.home.engine_log)
            finally:
                self._occupancy.release()
                finished(error)

        threading.Thread(target=run, name="engine work", daemon=True).start()
        return work.cancelled.set

    def _reply_in_run(self, request: ReplyRequest, emit: EmitReply, finished: Finished) -> Cancel | None:
        """Let the training thread of a paused run reply; None if no run is paused."""
        training = self.training
        if training is None:
            return None
        ending = EndsWithRun(threading.Event(), training.controls)

        def reply(base: LoadedBase, template: Template) -> None:
            error = None
            try:
                self.backend.reply_in_run(training.run_folder, base, template, request, emit, ending)
            except Exception as problem:
                error = diagnose(problem, "replying with the paused run", self.home.engine_log)
            finished(error)

        if training.controls.send_task(PausedTask(reply, lambda: finished(refusals.busy("training")))):
            return ending.cancelled.set
        if training.controls.paused:
            raise refusals.paused_without_model(training.run_folder)
        return None


def _check(recipe: Recipe, launch: Launch | None) -> None:
    """Raise WorkbenchError if this machine lacks something that the recipe needs."""
    if launch is not None:
        launch.check()
    check_reporters(recipe.training.report_to)
    check_kernels(recipe.training.kernels)
    check_optimizer(recipe.training.optim)


def _call_and_log(command: str, run: RunFolder) -> None:
    """Write why the command failed into the run's log, which Train shows with ``l``."""
    failure = call_on_end(command, run)
    if failure:
        # The run may have been deleted meanwhile.
        with suppress(OSError), run.log.open("a", encoding="utf-8") as log:
            log.write(f"{failure}\n")
