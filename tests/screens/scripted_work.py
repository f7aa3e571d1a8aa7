"""What the scripted engine does in the place of PyTorch and the hub: it waits for the test's script."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from tests.journals import JournalWriter
from tests.skipping_clock import awaiting_the_test
from workbench.data.facts import DataFacts, Example
from workbench.engine.client.protocol import (
    DeviceFacts,
    EvaluateRequest,
    ExamplesRequest,
    FactsRequest,
    ReplyPiece,
    ReplyRequest,
)
from workbench.engine.daemon.backend import Memory
from workbench.engine.daemon.work import LiveTraining, Work
from workbench.engine.steering.controls import Controls, PausedTask
from workbench.errors import WorkbenchError
from workbench.models.skeleton import Skeleton
from workbench.planning.launch import Launch
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import parse
from workbench.runs.folder import RunFolder

GIB = 2**30
_POLL_SECONDS = 0.01
CANCELLED = WorkbenchError("The work was cancelled.", "Start it again.", kind="cancelled")

Piece = Progress | ReplyPiece | Path | WorkbenchError | None


class Ends(Protocol):
    """What ends a reply."""

    def is_set(self) -> bool: ...


class Script:
    """What the work is to do next, as the test says it."""

    def __init__(self) -> None:
        self._pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # Whether the work waits for a piece that the test has yet to put in.
        self._is_awaited = False

    def put(self, piece: Piece) -> None:
        with self._lock:
            self._is_awaited = False
            self._pieces.put(piece)

    def play(self, cancelled: Ends) -> Iterator[Progress | ReplyPiece | Path]:
        """The pieces until the next None.

        Raises:
            WorkbenchError: one that the test put in, or ``CANCELLED``.
        """
        with awaiting_the_test(lambda: self._is_awaited and not cancelled.is_set()):
            while not cancelled.is_set():
                with self._lock:
                    self._is_awaited = self._pieces.empty()
                try:
                    piece = self._pieces.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if piece is None:
                    return
                if isinstance(piece, WorkbenchError):
                    raise piece
                yield piece
            raise CANCELLED


class _ScriptedControls(Controls):
    """The real ones; with no thread that trains, a task of a paused run is run in one of its own."""

    def send_task(self, task: PausedTask) -> bool:
        if not super().send_task(task):
            return False
        command = self.take()
        assert command is not None
        assert command.task is task
        threading.Thread(target=task.run, args=(None, None), daemon=True).start()
        return True


class ScriptedTraining:
    """A live run whose steps are the test's; its journal is a real one."""

    base = None

    def __init__(self, run: RunFolder, finished: Callable[[LiveTraining], None], begins: dict[str, Any] | None) -> None:
        self.run_folder = run
        self.controls = _ScriptedControls()
        self.progress: Progress | None = None
        self.max_steps = 100
        self.journal: JournalWriter | None = None
        self._finished = finished
        self._begins = begins

    def start(self) -> None:
        if self._begins is not None:
            self.open().write("run_started", run=self.run_folder.id, **self._begins)

    def open(self) -> JournalWriter:
        self.journal = JournalWriter(self.run_folder.journal)
        return self.journal

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def end(self) -> None:
        """The run is over: the engine takes it from here."""
        self.close()
        self._finished(self)


class ScriptedBackend:
    """A :class:`workbench.engine.daemon.backend.Backend` without a model.

    Args:
        process: the fields that tell a journal which process writes it.
    """

    holds_model = False

    def __init__(self, script: Script, process: Callable[[], dict[str, Any]]) -> None:
        self._script = script
        self._process = process
        self.device = DeviceFacts(kind="cpu", name="scripted", total_bytes=64 * GIB)
        # What the next work fails with.
        self.trouble: WorkbenchError | None = None
        self.requests: list[ReplyRequest] = []
        self.evaluations: list[EvaluateRequest] = []
        # What an evaluation that is stopped has found so far.
        self.found_when_stopped: Path | None = None
        self.run: ScriptedTraining | None = None

    def memory(self, training: LiveTraining | None) -> Memory:
        return Memory(device=self.device)

    def warm_up(self) -> None:
        pass

    def training(
        self,
        run: RunFolder,
        recipe: Recipe,
        launch: Launch | None,
        finished: Callable[[LiveTraining], None],
        *,
        resume: bool,
    ) -> ScriptedTraining:
        if self.trouble is not None:
            raise self.trouble
        begins = {
            "model": recipe.model.source,
            "recipe": recipe.as_dict(),
            "versions": {"torch": "2.13.0"},
            "hardware": {"cpu": "scripted"},
            **self._process(),
        }
        before, self.run = self.run, ScriptedTraining(run, finished, None if resume else begins)
        if resume and before is not None:
            self.run.max_steps = before.max_steps
        return self.run

    def take_back(self, training: LiveTraining) -> None:
        pass

    def reply(self, work: Work, request: ReplyRequest, emit: Callable[[Any], None]) -> None:
        report = work.reporter(emit)
        self._reply(request, lambda piece: (report if isinstance(piece, Progress) else emit)(piece), work.cancelled)

    def reply_in_run(
        self, run: RunFolder, base: Any, template: Any, request: ReplyRequest, emit: Callable[[Any], None], ending: Ends
    ) -> None:
        self._reply(request, emit, ending)

    def _reply(self, request: ReplyRequest, emit: Callable[[Any], None], cancelled: Ends) -> None:
        self.requests.append(request)
        try:
            for piece in self._script.play(cancelled):
                emit(piece)
        except WorkbenchError as error:
            if error is not CANCELLED:
                raise
            emit(last_piece("cancelled"))

    def evaluate(self, work: Work, request: EvaluateRequest, emit: Callable[[Progress], None]) -> Path:
        self.evaluations.append(request)
        report = work.reporter(emit)
        try:
            for piece in self._script.play(work.cancelled):
                if isinstance(piece, Path):
                    return piece
                assert isinstance(piece, Progress)
                report(piece)
        except WorkbenchError as error:
            if error is CANCELLED and self.found_when_stopped is not None:
                return self.found_when_stopped
            raise
        raise AssertionError("an evaluation ends with its file")

    def unload(self) -> None:
        if self.trouble is not None:
            raise self.trouble


def last_piece(reason: str, *, tokens: int = 42, context: int = 2048, left_out: int = 0) -> ReplyPiece:
    """The end of a reply with its figures."""
    return ReplyPiece(
        done=True,
        reason=reason,  # type: ignore[arg-type]
        prompt_tokens=30,
        context_tokens=context,
        left_out=left_out,
        tokens=tokens,
        first_token_seconds=0.25,
        tokens_per_second=21.5,
    )


class ScriptedSources:
    """Models and data as the test says; see :class:`workbench.engine.daemon.sources.Sources`."""

    def __init__(self, script: Script, skeleton: Skeleton | None) -> None:
        self._script = script
        self.skeleton = skeleton
        # What is said of the data: progress and facts in order, None where it waits for ``counted_on``.
        self.answers: list[Progress | DataFacts | WorkbenchError | None] = []
        self.counted_on = threading.Event()
        self.counted: list[tuple[Recipe, bool]] = []
        self.examples_there: list[Example] = []

    def fetch(self, model: ModelSection, report: Callable[[Progress], None], cancelled: threading.Event) -> None:
        for piece in self._script.play(cancelled):
            assert isinstance(piece, Progress)
            report(piece)

    def tree(self, model: ModelSection) -> Skeleton:
        if self.skeleton is None:
            raise WorkbenchError(f"There is no model {model.source}.", "Choose another one.", kind="model_not_found")
        return self.skeleton

    def facts(
        self, request: FactsRequest, report: Callable[[Progress], None], cancelled: threading.Event
    ) -> Iterator[DataFacts]:
        self.counted.append((parse(request.recipe), request.fetch))
        if not self.answers and not request.fetch:
            raise WorkbenchError("The tokenizer is not on this machine.", "Fetch it.", kind="tokenizer_elsewhere")
        for answer in self.answers:
            if answer is None:
                with awaiting_the_test(lambda: not (self.counted_on.is_set() or cancelled.is_set())):
                    while not self.counted_on.wait(_POLL_SECONDS):
                        if cancelled.is_set():
                            raise CANCELLED
            elif isinstance(answer, Progress):
                report(answer)
            elif isinstance(answer, WorkbenchError):
                raise answer
            else:
                yield answer

    def examples(self, request: ExamplesRequest) -> list[Example]:
        found = [
            one for one in self.examples_there[request.start :] if request.search.casefold() in one.text.casefold()
        ]
        return found[: request.count]

    def close_if_idle(self) -> None:
        pass
