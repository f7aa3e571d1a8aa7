"""The work itself: one base in memory, on which PyTorch trains, replies and evaluates."""

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
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


class TorchBackend:
    """The :class:`~workbench.engine.daemon.backend.Backend` of a real engine.

    Args:
        output: where file descriptors 1 and 2 go; a run in this process borrows it for its own log.
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
        self._look_at_device()

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
            # A trainer is held together by cycles: without this, optimizer and gradients would stay in memory.
            _free_cached_memory()

    def reply(self, work: Work, request: ReplyRequest, emit: EmitReply) -> None:
        from workbench.engine.generation.replies import prepare_reply, reply

        report = _begin(work, emit)
        model = prepare_reply(self._home, request, self.base, self._loader(work), report, work.cancelled.is_set)
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

    def evaluate(self, work: Work, request: EvaluateRequest, emit: Callable[[Progress], None]) -> Path:
        report = _begin(work, emit)
        from workbench.engine.generation.evaluate import evaluate

        return evaluate(self._home, request, self.base, self._loader(work), report, work.cancelled)

    def unload(self) -> None:
        self.base = None
        _free_cached_memory()

    def _loader(self, work: Work) -> Callable[[Callable[[], LoadedBase]], LoadedBase]:
        """Makes room for another base, and has it loaded."""

        def load_in_its_place(load: Callable[[], LoadedBase]) -> LoadedBase:
            doing, work.state = work.state, "loading"
            self.unload()
            self.base = load()
            self._look_at_device()
            work.state = doing
            return self.base

        return load_in_its_place

    def _look_at_device(self) -> None:
        """Remember the device; asking for it opens the GPU, which takes seconds that the API's thread does not have."""
        from workbench.engine.model.hardware import device_facts

        self._device = self._device or device_facts()


def _begin(work: Work, emit: Callable[[Progress], None]) -> Callable[[Progress], None]:
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
