"""An engine that does what a test says, when the test says so: no model, no clock, no sleep.

It keeps the engine's contract where screens can see it: run folders and journals are real files written by the
workbench's own code, states and refusals are the engine's. What takes time in a real engine waits for the test here:
a reply for its pieces (:meth:`ScriptedEngine.say`), a run for its steps (:meth:`ScriptedEngine.step`).
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil

from tests.journals import JournalWriter
from workbench.data.facts import DataFacts, Example, Lengths
from workbench.engine.client.protocol import (
    ControlAction,
    ControlRequest,
    DeviceFacts,
    EngineState,
    EngineStatus,
    EvaluateRequest,
    ReplyPiece,
    ReplyRequest,
)
from workbench.errors import WorkbenchError
from workbench.models.skeleton import Skeleton
from workbench.planning.launch import Launch
from workbench.planning.queue import Queue, QueueRequest, QueueState
from workbench.progress import Progress
from workbench.recipe.schema import ModelSection, Recipe
from workbench.runs.folder import RunFolder, create_run, find_run
from workbench.runs.journal import last_seq
from workbench.storage.paths import Home

GIB = 2**30


def some_facts(
    conversations: list[tuple[str, str]], *, template: str = "model", max_length: int = 64, **more: Any
) -> DataFacts:
    """Facts as of a data set whose lengths rise from 30 to 92 tokens, with these questions and replies as examples."""
    bins = tuple((start, start + 2, 2 + start // 9 if start < 80 else 3) for start in range(30, 92, 2))
    figures: dict[str, Any] = {
        "records": 326,
        "train_records": 300,
        "eval_records": 26,
        "skipped": 3,
        "total": 20_864,
        "trained": 9_702,
        "cut": 1_523,
        "truncated": 71,
        "lengths": Lengths(62, 81, 90, 92, bins),
        "packed_sequences": 311,
        "padding_waste": 0.18,
        "packed_waste": 0.02,
        "duplicates": 4,
        "near_empty": 1,
        "longest": ((250, "first-mate.jsonl, line 251", 92), (1, "first-mate.jsonl, line 2", 91)),
        "notices": ("Skipped: 3 records (column response is empty: 3).",),
    }
    examples = tuple(fed(index, question, reply) for index, (question, reply) in enumerate(conversations))
    return DataFacts(
        "instruction", "the prompt is in instruction", template, max_length, **(figures | {"examples": examples} | more)
    )


def fed(index: int, question: str, reply: str) -> Example:
    """A question and its reply as ChatML feeds them."""
    asked, said = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", f"{reply}<|im_end|>"
    spans = (
        (0, len(asked), False),
        (len(asked), len(asked + said), True),
        (len(asked + said), len(asked + said) + 1, False),
    )
    return Example(index, f"first-mate.jsonl, line {index + 1}", f"{asked}{said}\n", spans, 58, 0, index == 1)


class ScriptedEngine:
    """The engine of one home, under the test's hand.

    Args:
        home: where its runs go.
        skeleton: what :meth:`tree` answers; without one it refuses.
        running: whether a process is up already, or only after :meth:`ensure`.
    """

    def __init__(self, home: Home, *, skeleton: Skeleton | None = None, running: bool = True) -> None:
        self.home = home
        self.running = running
        self.asked: list[str] = []
        self.requests: list[ReplyRequest] = []
        self.judged: list[EvaluateRequest] = []
        self.refusal: WorkbenchError | None = None
        self.skeleton = skeleton
        self.run: RunFolder | None = None
        self.state: EngineState = "idle"
        self.stopping = False
        self.paused = ""
        self._replies_in_pause = False
        self.commands: list[ControlRequest] = []
        self.progress: Progress | None = None
        self.max_steps = 0
        self.closed = False
        self.device = DeviceFacts(kind="cpu", name="scripted", total_bytes=64 * GIB)
        # What is said of the data: progress and facts in order, None where it waits for ``counted_on``.
        self.answers: list[Progress | DataFacts | WorkbenchError | None] = []
        self.counted_on = asyncio.Event()
        self.counted: list[tuple[Recipe, bool]] = []
        self.examples_there: list[Example] = []
        self._journal: JournalWriter | None = None
        self._body: subprocess.Popen[bytes] | None = None
        # Of the stream that was asked for last.
        self._request_id = ""
        self._stream: asyncio.Queue[Progress | ReplyPiece | Path | WorkbenchError | None] = asyncio.Queue()

    # -- what screens call ----------------------------------------------------------------------------------------

    async def ensure(self) -> None:
        self.asked.append("ensure")
        self._refuse()
        self.running = True

    async def status(self) -> EngineStatus:
        self._must_run()
        line = Queue(self.home).read()
        return EngineStatus(
            pid=os.getpid(),
            version="0",
            started=0.0,
            state="paused" if self.paused else self.state,
            run=self.run.id if self.run and self.state == "training" else None,
            run_folder=str(self.run.path) if self.run and self.state == "training" else None,
            stopping=self.stopping,
            paused=self.paused,
            progress=self.progress,
            device=self.device,
            queued=len(line.waiting),
            queue_held=line.held,
        )

    async def train(self, recipe: Recipe, launch: Launch | None = None) -> str:
        self.asked.append("train" if launch is None else f"train on {launch.devices}")
        self._claim("training")
        self.begin(recipe)
        assert self.run is not None
        return self.run.id

    async def resume(self, run: str) -> tuple[str, int]:
        self.asked.append(f"resume {run}")
        self._claim("training")
        self.run = find_run(self.home, run)
        return run, last_seq(self.run.journal)

    async def change_queue(self, request: QueueRequest) -> QueueState:
        self.asked.append(" ".join([f"queue {request.action}", *map(str, request.ids)]))
        self._refuse()
        live = str(self.run.path) if self.run and self.state == "training" else ""
        return Queue(self.home).apply(request, live)

    async def control(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        self._must_be_live()
        self.commands.append(ControlRequest(action=action, value=value, release=release))
        value_words = [] if value is None else [f"{value:g}"]
        self.asked.append(" ".join([action, *value_words, *(["release"] if release else [])]))

    async def stop(self, *, save: bool = True) -> None:
        self.asked.append("stop" if save else "discard")
        self._must_be_live()
        self.stopping = True

    async def kill(self) -> None:
        self.asked.append("kill")
        self.die()

    async def reply(self, request: ReplyRequest, *, request_id: str = "") -> AsyncGenerator[Progress | ReplyPiece]:
        self.asked.append("reply")
        self._request_id = request_id
        if self.paused:
            self._replies_in_pause = True
        else:
            self._claim("replying")
        self.requests.append(request)
        try:
            while (piece := await self._stream.get()) is not None:
                if isinstance(piece, WorkbenchError):
                    raise piece
                yield piece
        finally:
            if self._replies_in_pause:
                self._replies_in_pause = False
            else:
                self.state = "idle"

    async def judge(self, request: EvaluateRequest, *, request_id: str = "") -> AsyncGenerator[Progress | Path]:
        self.asked.append("judge")
        self._request_id = request_id
        self._claim("evaluating")
        self.judged.append(request)
        try:
            while (piece := await self._stream.get()) is not None:
                if isinstance(piece, WorkbenchError):
                    raise piece
                assert isinstance(piece, Progress | Path)
                yield piece
        finally:
            self.state = "idle"

    async def cancel(self, request_id: str) -> None:
        is_mine = request_id == self._request_id
        self.asked.append("cancel" if is_mine else "cancel what another one asked for")
        if self._replies and is_mine:
            self.end(reason="cancelled")

    async def fetch(self, model: ModelSection, *, request_id: str = "") -> AsyncGenerator[Progress]:
        self.asked.append(f"fetch {model.source}")
        self._request_id = request_id
        self._claim("loading")
        try:
            while (piece := await self._stream.get()) is not None:
                if isinstance(piece, WorkbenchError):
                    raise piece
                assert isinstance(piece, Progress)
                yield piece
        finally:
            self.state = "idle"

    async def tree(self, model: ModelSection) -> Skeleton:
        self.asked.append(f"tree {model.source}")
        self._must_run()
        if self.skeleton is None:
            raise WorkbenchError(f"There is no model {model.source}.", "Choose another one.", kind="model_not_found")
        return self.skeleton

    async def facts(
        self, recipe: Recipe, *, fetch: bool = False, show: int = 3, request_id: str = ""
    ) -> AsyncGenerator[Progress | DataFacts]:
        self.counted.append((recipe, fetch))
        self._must_run()
        if not self.answers and not fetch:
            raise WorkbenchError("The tokenizer is not on this machine.", "Fetch it.", kind="tokenizer_elsewhere")
        for answer in self.answers:
            if answer is None:
                await self.counted_on.wait()
            elif isinstance(answer, WorkbenchError):
                raise answer
            else:
                yield answer

    async def examples(self, recipe: Recipe, start: int, count: int = 1, search: str = "") -> list[Example]:
        self.asked.append(f"examples {start} {count} {search}".strip())
        self._must_run()
        return [one for one in self.examples_there[start:] if search.casefold() in one.text.casefold()][:count]

    async def unload(self) -> None:
        self.asked.append("unload")
        self._refuse()

    async def shutdown(self) -> None:
        self.asked.append("shutdown")
        self.running = False

    async def close(self) -> None:
        self.closed = True

    # -- what a test calls: a run ---------------------------------------------------------------------------------

    def begin(self, recipe: Recipe, *, max_steps: int = 100) -> RunFolder:
        """Start a run, as :meth:`train` does."""
        self.state, self.stopping = "training", False
        self.max_steps = max_steps
        self.run = create_run(self.home, recipe)
        self._journal = JournalWriter(self.run.journal)
        self._journal.write(
            "run_started",
            run=self.run.id,
            model=recipe.model.source,
            recipe=recipe.as_dict(),
            versions={"torch": "2.13.0"},
            hardware={"cpu": "scripted"},
            **self.who(),
        )
        return self.run

    def embody(self) -> None:
        """Let a process stand for the engine's, so that it can :meth:`die`."""
        self._body = subprocess.Popen(["sleep", "600"])

    def die(self) -> None:
        """The engine's process is killed in the middle of whatever it does."""
        if self._body is not None:
            self._body.kill()
            self._body.wait()
            self._body = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self.state, self.stopping, self.progress, self.paused = "idle", False, None, ""
        self.running = False

    def who(self) -> dict[str, Any]:
        """The process that writes the journal."""
        process = psutil.Process(self._body.pid if self._body else None)
        return {"pid": process.pid, "process_started": process.create_time()}

    def goes_on(self, step: int, checkpoint: str | None = None) -> None:
        """The run that was resumed begins to write, from this step on."""
        assert self.run is not None
        self.state = "training"
        self._journal = JournalWriter(self.run.journal)
        self.write("run_resumed", run=self.run.id, step=step, checkpoint=checkpoint, **self.who())

    def obey(self, step: int) -> None:
        """Do what was asked so far, after this step, as far as it can be told by the journal."""
        while self.commands:
            command = self.commands.pop(0)
            if command.action == "resume":
                if self.paused:
                    self.paused = ""
                    self.write("resumed", step=step)
                continue
            value = {} if command.value is None else {"value": command.value}
            self.write("control", action=command.action, step=step, **value)
            match command.action:
                case "pause":
                    self.paused = "Paused; " + ("GPU memory released." if command.release else "model kept in memory.")
                    self.write("paused", step=step, reason=self.paused, release=command.release)
                case "checkpoint":
                    self.write("checkpoint", step=step, path=f"checkpoint-{step}")
                case "max_steps":
                    self.max_steps = int(command.value or 0)
                    self.phase("training", step / self.max_steps, max_steps=self.max_steps)

    def write(self, event: str, **fields: Any) -> None:
        """Append any event to the live run's journal."""
        assert self._journal is not None
        self._journal.write(event, **fields)

    def phase(self, phase: str, fraction: float | None = None, detail: str = "", **more: Any) -> None:
        self.progress = Progress(phase=phase, fraction=fraction, detail=detail)
        self.write("phase", **self.progress.model_dump(), **more)

    def step(self, step: int, loss: float, **more: Any) -> None:
        """One optimizer step, with figures that follow from its number alone."""
        fields: dict[str, Any] = {
            "step": step,
            "max_steps": self.max_steps,
            "epoch": round(step / self.max_steps, 4),
            "loss": loss,
            "learning_rate": 2e-4 * (1 - step / (self.max_steps + 1)),
            "grad_norm": 0.83,
            "tokens": step * 1500,
            "tokens_per_second": 3100.0,
            "seconds": 0.5,
            "vram": None,
            "host": {"rss": int(1.25 * GIB), "peak": int(1.5 * GIB)},
            "eta_seconds": round((self.max_steps - step) * 0.5, 1),
        }
        self.write("step", **(fields | more))

    def evaluate(self, step: int, loss: float, perplexity: float, *, best: bool = False) -> None:
        figures = {"loss": loss, "perplexity": perplexity, "token_accuracy": 0.5, "best": best}
        self.write("eval", step=step, records=30, tokens=900, **figures)

    def sample(self, step: int, replies: list[tuple[str, str]]) -> None:
        self.write("sample", step=step, replies=[{"prompt": prompt, "reply": reply} for prompt, reply in replies])

    def finish(
        self,
        reason: str = "finished",
        step: int = 0,
        measured: dict[str, Any] | None = None,
        kept_step: int | None = None,
    ) -> None:
        """End the run, with an adapter folder unless it was discarded or failed."""
        assert self.run is not None
        assert self._journal is not None
        kept = reason in ("finished", "early_stopping", "stopped")
        if kept:
            self.run.adapter.mkdir(exist_ok=True)
        self.write(
            "run_ended",
            reason=reason,
            run=self.run.id,
            adapter=str(self.run.adapter) if kept else None,
            step=step,
            kept_step=step if kept_step is None else kept_step,
            measured=measured,
        )
        self._journal.close()
        self._journal = None
        self.state, self.stopping, self.progress, self.paused = "idle", False, None, ""

    def fail(self, message: str, cure: str = "", traceback: str = "", kind: str = "error") -> None:
        self.write("error", kind=kind, message=message, cure=cure, traceback=traceback)
        self.finish("error")

    # -- what a test calls: a reply or a download -----------------------------------------------------------------

    def load(self, phase: str, fraction: float | None = None, detail: str = "") -> None:
        self._stream.put_nowait(Progress(phase=phase, fraction=fraction, detail=detail))

    def say(self, text: str) -> None:
        self._stream.put_nowait(ReplyPiece(text=text))

    def end(self, reason: str = "end", *, tokens: int = 42, context: int = 2048, left_out: int = 0) -> None:
        """End the reply or the download with its figures."""
        if self._replies:
            self._stream.put_nowait(
                ReplyPiece(
                    done=True,
                    reason=reason,  # type: ignore[arg-type]
                    prompt_tokens=30,
                    context_tokens=context,
                    left_out=left_out,
                    tokens=tokens,
                    first_token_seconds=0.25,
                    tokens_per_second=21.5,
                )
            )
        self._stream.put_nowait(None)

    def found(self, file: Path) -> None:
        """The evaluation ends; it is kept in this file."""
        self._stream.put_nowait(file)
        self._stream.put_nowait(None)

    def break_off(self, error: WorkbenchError) -> None:
        """The reply or download ends with an error."""
        self._stream.put_nowait(error)

    # -- the rest -------------------------------------------------------------------------------------------------

    @property
    def _replies(self) -> bool:
        return self.state == "replying" or self._replies_in_pause

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _must_be_live(self) -> None:
        self._must_run()
        if self.state != "training":
            raise WorkbenchError("No run is live.", "There is nothing to stop.", kind="no_run")

    def _must_run(self) -> None:
        if not self.running:
            raise WorkbenchError("The engine does not answer.", "Start it again.", kind="engine_gone")

    def _claim(self, state: EngineState) -> None:
        self._must_run()
        self._refuse()
        if self.state != "idle":
            doing = {
                "training": "training a run",
                "replying": "generating a reply",
                "evaluating": "evaluating a run",
                "loading": "loading a model",
            }
            raise WorkbenchError(
                f"The engine is busy {doing[self.state]}.", "Wait until it finishes, or stop it first.", kind="busy"
            )
        self.state = state
