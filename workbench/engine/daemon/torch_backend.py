"""The engine's backend: loads a base with PyTorch, trains it, replies with it and evaluates it."""

from collections.abc import Callable
from pathlib import Path

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import DeviceFacts, EvaluateRequest, LoadedModel, ReplyRequest
from workbench.engine.daemon.backend import EmitReply, Memory
from workbench.engine.daemon.output import OutputFile
from workbench.engine.daemon.work import EndsWithRun, LiveTraining, Work
from workbench.engine.distributed.launched import LaunchedTraining
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.libraries import import_libraries
from workbench.engine.training.thread import TrainingThread
from workbench.planning.launch import Launch
from workbench.progress import Progress, Report
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


class TorchBackend:
    """The :class:`~workbench.engine.daemon.backend.Backend` of a real engine.

    Args:
        output: receives what this process prints; while a run trains in this process, goes to the run's log.
    """

    def __init__(self, home: Home, output: OutputFile | None = None) -> None:
        self._home = home
        self._output = output
        self._device: DeviceFacts | None = None
        self.base: LoadedBase | None = None

    @property
    def holds_model(self) -> bool:
        return self.base is not None

    def memory(self, training: LiveTraining | None) -> Memory:
        allocated, reserved = 0, 0
        if self._device is not None:
            from workbench.engine.model.hardware import allocated_and_reserved

            allocated, reserved = allocated_and_reserved()
        return Memory(self._device, _loaded_model(training.base if training else self.base), allocated, reserved)

    def warm_up(self) -> None:
        import_libraries()
        self._read_device_facts()

    def training(
        self,
        run: RunFolder,
        recipe: Recipe,
        launch: Launch | None,
        finished: Callable[[LiveTraining], None],
        *,
        resume: bool,
    ) -> LiveTraining:
        if launch is not None and launch.needs_launcher:
            self.unload()
            return LaunchedTraining(self._home, run, launch, finished=finished, resume=resume)
        training = TrainingThread(self._home, run, recipe, self.base, on_finished=finished, resume=resume)
        self.base = None
        if self._output:
            self._output.switch(run.log)
        return training

    def take_back(self, training: LiveTraining) -> None:
        self.base = training.base
        try:
            if self._output:
                self._output.restore()
        finally:
            # A trainer contains reference cycles: without a collection, optimizer and gradients stay in memory.
            _free_cached_memory()

    def reply(self, work: Work, request: ReplyRequest, emit: EmitReply) -> None:
        from workbench.engine.generation.replies import prepare_reply, reply

        report = _prepared_reporter(work, emit)
        model = prepare_reply(self._home, request, self.base, self._replacer(work), report, work.cancelled.is_set)
        work.progress = None
        reply(model, request, emit, work.cancelled)

    def reply_in_run(
        self,
        run: RunFolder,
        base: LoadedBase,
        template: Template,
        request: ReplyRequest,
        emit: EmitReply,
        ending: EndsWithRun,
    ) -> None:
        from workbench.engine.generation.replies import reply_in_run

        reply_in_run(self._home, run, base, template, request, emit, ending)

    def evaluate(self, work: Work, request: EvaluateRequest, emit: Report) -> Path:
        report = _prepared_reporter(work, emit)
        from workbench.engine.generation.evaluate import evaluate
        from workbench.engine.generation.task_evaluation import evaluate_tasks

        do = evaluate if request.tasks is None else evaluate_tasks
        return do(self._home, request, self.base, self._replacer(work), report, work.cancelled)

    def unload(self) -> None:
        self.base = None
        _free_cached_memory()

    def _replacer(self, work: Work) -> Callable[[Callable[[], LoadedBase]], LoadedBase]:
        """Return a function that releases the base and calls a given one to load another."""

        def replace_base(load: Callable[[], LoadedBase]) -> LoadedBase:
            state, work.state = work.state, "loading"
            self.unload()
            self.base = load()
            self._read_device_facts()
            work.state = state
            return self.base

        return replace_base

    def _read_device_facts(self) -> None:
        """Read the device's facts, once. This initializes CUDA, which takes seconds; :meth:`memory` must not wait."""
        from workbench.engine.model.hardware import device_facts

        self._device = self._device or device_facts()


def _prepared_reporter(work: Work, emit: Report) -> Report:
    """Import the libraries, and return the function that reports progress, this import's first."""
    report = work.reporter(emit)
    report(Progress(phase="loading", detail="importing libraries"))
    import_libraries()
    return report


def _free_cached_memory() -> None:
    from workbench.engine.model.hardware import free_cached_memory

    free_cached_memory()


def _loaded_model(base: LoadedBase | None) -> LoadedModel | None:
    if base is None:
        return None
    return LoadedModel(
        source=base.section.source,
        method=base.quantization.method,
        adapter=base.active_adapter,
        adapters=sorted(map(str, list(base.adapters))),
        bytes=base.footprint,
    )
