"""What the engine is doing: at most one thing at a time, in one background thread, on one model in memory."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from workbench import __version__
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import (
    DeviceFacts,
    EngineState,
    EngineStatus,
    EvaluateRequest,
    ReplyPiece,
    ReplyRequest,
)
from workbench.engine.daemon.output import OutputFile
from workbench.engine.daemon.queue import QueueKeeper
from workbench.engine.daemon.work import EndsWithRun, Work, busy, loaded_model, reporter
from workbench.engine.distributed.launched import LaunchedTraining
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.libraries import import_libraries
from workbench.engine.steering.controls import Command, PausedTask
from workbench.engine.training.thread import TrainingThread
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import write_traceback
from workbench.planning.launch import Launch
from workbench.planning.queue import QueueRequest, QueueState
from workbench.progress import Progress
from workbench.recipe.fused_kernels import check_kernels
from workbench.recipe.schema import Recipe
from workbench.recipe.text import parse
from workbench.recipe.trackers import check_reporters
from workbench.runs.folder import RunFolder, create_run, find_run, summarise
from workbench.runs.journal import last_seq
from workbench.storage.paths import Home

Emit = Callable[[Progress | ReplyPiece], None]


class Engine:
    """The state behind the API. Methods may be called from any thread.

    :meth:`train`, :meth:`resume`, :meth:`change_queue` and :meth:`unload` read and write files or free memory, so the
    API calls them off its event loop; the others return at once.

    Args:
        output: where file descriptors 1 and 2 go; a run borrows it for its own log.
    """

    def __init__(self, home: Home, output: OutputFile | None = None) -> None:
        self.home = home
        self._output = output
        self._lock = threading.Lock()
        self._work: Work | None = None
        self._base: LoadedBase | None = None
        self._started = time.time()
        self.last_used = time.monotonic()
        self._device: DeviceFacts | None = None
        self._is_ending = False
        self.queue = QueueKeeper(home, self)

    def status(self) -> EngineStatus:
        """The present state. Never waits for the model."""
        work = self._work
        training = work.training if work else None
        base = training.base if training else self._base
        line = self.queue.line
        allocated, reserved = 0, 0
        if self._device is not None:
            from workbench.engine.model.hardware import allocated_and_reserved

            allocated, reserved = allocated_and_reserved()
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
            model=loaded_model(base),
            device=self._device,
            allocated=allocated,
            reserved=reserved,
            queued=len(line.waiting),
            queue_held=line.held,
        )

    @property
    def is_busy(self) -> bool:
        return self._work is not None

    @property
    def is_training(self) -> bool:
        """Whether a run is live or about to be."""
        return (work := self._work) is not None and work.state == "training"

    @property
    def holds_model(self) -> bool:
        """Whether a base lies in memory that no run is using."""
        return self._base is not None

    def warm_up(self) -> None:
        """Import the heavy libraries, so that the first run or reply need not wait for them. Slow: for a thread."""
        import_libraries()
        self._look_at_device()

    def _look_at_device(self) -> None:
        """Remember the device; asking for it opens the GPU, which takes seconds that the API's thread does not have."""
        from workbench.engine.model.hardware import device_facts

        self._device = self._device or device_facts()

    def train(
        self, recipe: Recipe, launch: Launch | None = None, *, folder: Callable[[], RunFolder] | None = None
    ) -> RunFolder:
        """Make a run folder and start training in the background, in this process or as ``launch`` says.

        Args:
            folder: makes the run folder, once the engine is free.

        Raises:
            WorkbenchError: the engine is busy, the folder cannot be made, or the launch is impossible.
        """
        return self._train(folder or (lambda: create_run(self.home, recipe)), recipe, launch, resume=False)

    def resume(self, name: str, launch: Launch | None = None) -> tuple[RunFolder, int]:
        """Let a run go on from its newest whole checkpoint; from its start where it has none.

        It goes on as it was started, unless ``launch`` says otherwise.

        Returns:
            The run, and the number of its journal's last event so far.

        Raises:
            WorkbenchError: there is no such run, it is over, or the engine is busy.
        """
        run = find_run(self.home, name)
        recipe = run.recipe()
        summary = summarise(run)
        if summary.state in ("running", "finished"):
            raise WorkbenchError(
                f"Run {run.id} is still training." if summary.state == "running" else f"Run {run.id} has finished.",
                "Start a new run from its recipe to train further.",
                kind="nothing_to_resume",
            )
        last = last_seq(run.journal)
        return self._train(lambda: run, recipe, launch or Launch.of(run), resume=True), last

    def _train(
        self, folder: Callable[[], RunFolder], recipe: Recipe, launch: Launch | None, *, resume: bool
    ) -> RunFolder:
        if launch is not None:
            launch.check()
        check_reporters(recipe.training.report_to)
        check_kernels(recipe.training.kernels)
        work = self._claim("training")
        try:
            run = folder()
            if launch is not None:
                launch.save(run)
            self.queue.begins(run)
            if launch is not None and launch.needs_launcher:
                self._drop_base()
                training: TrainingThread | LaunchedTraining = LaunchedTraining(
                    self.home, run, launch, finished=self._training_ended, resume=resume
                )
            else:
                training = TrainingThread(
                    self.home, run, recipe, self._base, finished=self._training_ended, resume=resume
                )
                self._base = None
                if self._output:
                    self._output.switch(run.log)
            with self._lock:
                work.training = training
                if self._is_ending:  # asked for while the folder was made: end() saw no training that it could stop
                    training.controls.stop(save=True)
            training.start()
        except BaseException:
            self._release()
            raise
        return run

    def _training_ended(self, training: TrainingThread | LaunchedTraining) -> None:
        """Take the model back, tell the queue, and be free again, whatever fails on the way."""
        from workbench.engine.model.hardware import free_cached_memory

        self._base = training.base
        last: list[Callable[[], None]] = [
            lambda: self.queue.ends(training.run_folder, with_engine=self._is_ending),
            # A trainer is held together by cycles: without this, optimizer and gradients would still lie there.
            free_cached_memory,
        ]
        if self._output:
            last.insert(0, self._output.restore)
        try:
            for step in last:
                self._logged(step, f"ending run {training.run_folder.id}")
        finally:
            self._release()

    def _logged(self, do: Callable[[], None], doing: str) -> None:
        """Do something that may fail without stopping what follows; the engine's log then holds the traceback."""
        try:
            do()
        except Exception as error:
            write_traceback(error, doing, self.home.engine_log)

    def stop(self, *, save: bool) -> None:
        """End the live run within one micro-step.

        Raises:
            WorkbenchError: there is none.
        """
        work = self._work
        if work is None or work.training is None:
            raise WorkbenchError("No run is live.", "There is nothing to stop.", kind="no_run")
        work.training.controls.stop(save=save)

    def change_queue(self, request: QueueRequest) -> QueueState:
        """Change the queue.

        Raises:
            WorkbenchError: it cannot be done.
        """
        for run in request.runs:
            settings = parse(run.recipe).training
            check_reporters(settings.report_to)
            check_kernels(settings.kernels)
            if run.launch is not None:
                run.launch.check()
        training = self._work.training if self._work else None
        return self.queue.ask(request, str(training.run_folder.path) if training else "")

    def control(self, command: Command) -> None:
        """Do something with the live run, between two of its steps.

        Raises:
            WorkbenchError: no run is live, or the command lacks its value.
        """
        training = self._work.training if self._work else None
        if training is None:
            raise WorkbenchError("No run is live.", "Start one, or resume one that was interrupted.", kind="no_run")
        if command.action in ("learning_rate", "max_steps") and command.value is None:
            raise WorkbenchError(f"{command.action} needs a number.", "Give the new value.", kind="bad_request")
        training.controls.send(command)

    def end(self) -> None:
        """Take no more work, and stop and save the live run."""
        with self._lock:
            self._is_ending = True
            training = self._work.training if self._work else None
        if training is not None:
            training.controls.stop(save=True)

    def reply(
        self, request: ReplyRequest, emit: Emit, finished: Callable[[WorkbenchError | None], None]
    ) -> Callable[[], None]:
        """Answer in the background: pieces go to ``emit``, then ``finished`` is called once.

        A run that stands still with its model in memory answers too, with its weights as they are.

        Returns:
            Ends this reply, and never the next one.

        Raises:
            WorkbenchError: the engine is busy.
        """
        if close := self._reply_of_run(request, emit, finished):
            return close
        work = self._claim("replying")
        return self._in_background(work, lambda: self._reply(work, request, emit), finished)

    def evaluate(
        self,
        request: EvaluateRequest,
        emit: Callable[[Progress], None],
        kept: Callable[[Path], None],
        finished: Callable[[WorkbenchError | None], None],
    ) -> Callable[[], None]:
        """Judge a run in the background: progress goes to ``emit``, the file of what was found to ``kept``.

        Returns:
            Ends this evaluation.

        Raises:
            WorkbenchError: the engine is busy.
        """
        work = self._claim("evaluating")
        return self._in_background(work, lambda: kept(self._evaluate(work, request, emit)), finished)

    def _in_background(
        self, work: Work, do: Callable[[], None], finished: Callable[[WorkbenchError | None], None]
    ) -> Callable[[], None]:
        def run() -> None:
            error: WorkbenchError | None = None
            try:
                do()
            except Exception as problem:
                error = diagnose(problem, f"{work.state} in the background", self.home.engine_log)
            finally:
                self._release()
                finished(error)

        threading.Thread(target=run, name="engine work", daemon=True).start()
        return work.cancelled.set

    def _reply_of_run(
        self, request: ReplyRequest, emit: Emit, finished: Callable[[WorkbenchError | None], None]
    ) -> Callable[[], None] | None:
        """Have the thread that trains answer; None where none stands still."""
        work = self._work
        if work is None or work.training is None:
            return None
        training, cancelled = work.training, threading.Event()

        def answer(base: LoadedBase, template: Template) -> None:
            from workbench.engine.generation.replies import reply_in_run

            error = None
            try:
                ending = EndsWithRun(cancelled, training.controls)
                reply_in_run(self.home, training.run_folder, base, template, request, emit, ending)
            except Exception as problem:
                error = diagnose(problem, "replying with the paused run", self.home.engine_log)
            finished(error)

        if training.controls.send_task(PausedTask(answer, lambda: finished(busy("training")))):
            return cancelled.set
        if training.controls.paused:
            raise WorkbenchError(
                f"Run {training.run_folder.id} is paused and its model is not in memory.",
                "Resume the run, or stop it first.",
                kind="busy",
            )
        return None

    def _reply(self, work: Work, request: ReplyRequest, emit: Emit) -> None:
        from workbench.engine.generation.replies import prepare_reply, reply

        report = reporter(work, emit)
        report(Progress(phase="loading", detail="importing libraries"))
        import_libraries()
        model = prepare_reply(self.home, request, self._base, self._loader(work), report, work.cancelled.is_set)
        work.progress = None
        reply(model, request, emit, work.cancelled)

    def _evaluate(self, work: Work, request: EvaluateRequest, emit: Callable[[Progress], None]) -> Path:
        report = reporter(work, emit)
        report(Progress(phase="loading", detail="importing libraries"))
        import_libraries()
        from workbench.engine.generation.evaluate import evaluate

        return evaluate(self.home, request, self._base, self._loader(work), report, work.cancelled)

    def _loader(self, work: Work) -> Callable[[Callable[[], LoadedBase]], LoadedBase]:
        """Makes room for another base, and has it loaded."""

        def loaded(load: Callable[[], LoadedBase]) -> LoadedBase:
            doing, work.state = work.state, "loading"
            self._drop_base()
            self._base = load()
            self._look_at_device()
            work.state = doing
            return self._base

        return loaded

    def unload(self) -> None:
        """Give the model's memory back.

        Raises:
            WorkbenchError: the engine is busy.
        """
        self._claim("loading")
        try:
            self._drop_base()
        finally:
            self._release()

    def _drop_base(self) -> None:
        self._base = None
        from workbench.engine.model.hardware import free_cached_memory

        free_cached_memory()

    def _claim(self, state: EngineState) -> Work:
        with self._lock:
            if self._is_ending:
                raise WorkbenchError("The engine is shutting down.", "Try again in a moment.", kind="engine_gone")
            if self._work is not None:
                raise busy(self._work.state)
            self._work = Work(state)
            return self._work

    def _release(self) -> None:
        self._work = None
        self.last_used = time.monotonic()
        self.queue.wake()
