"""The engine's own API and state in this process; what takes a GPU, the hub or time is done when the test says so.

Operations, states and refusals are the real ones: a screen talks through the real client to the real routes, which ask
the real :class:`workbench.engine.daemon.engine.Engine`. Only its backend is scripted: a reply waits for its pieces
(:meth:`ScriptedEngine.say`), a run for its steps (:meth:`ScriptedEngine.step`).
"""

import subprocess
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
from starlette.applications import Starlette

from tests.screens.in_process import InProcess
from tests.screens.scripted_work import GIB, Script, ScriptedBackend, ScriptedSources, ScriptedTraining, last_piece
from workbench.data.facts import DataFacts, Example, Lengths
from workbench.engine.client.connection import Connection
from workbench.engine.client.engine_api import EngineApi
from workbench.engine.client.home_engine import HomeEngine
from workbench.engine.client.operation import Answer, Call, Item, Request, Stream
from workbench.engine.client.protocol import Message, ReplyPiece, ReplyRequest
from workbench.engine.daemon.api import Api
from workbench.engine.daemon.engine import Engine
from workbench.errors import WorkbenchError
from workbench.models.skeleton import Skeleton
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


def some_facts(
    conversations: list[tuple[str, str]], *, template: str = "model", max_length: int = 64, **more: Any
) -> DataFacts:
    """Facts as of a dataset whose lengths rise from 30 to 92 tokens, with these questions and replies as examples."""
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


class ScriptedEngine(HomeEngine):
    """The engine of one home, under the test's hand.

    Args:
        home: where its runs go.
        skeleton: the tree of every model; without one no model is found.
        running: whether a process is up already, or only after :meth:`ensure`.
    """

    def __init__(self, home: Home, *, skeleton: Skeleton | None = None, running: bool = True) -> None:
        super().__init__(home)
        self.running = running
        self.asked: list[str] = []
        self.closed = False
        self._script = Script()
        self.backend = ScriptedBackend(self._script, self.who)
        self.sources = ScriptedSources(self._script, skeleton)
        self._real = self._new_engine()
        self._transport = InProcess(self._listening)
        self._body: subprocess.Popen[bytes] | None = None
        self._last_stream = ""

    # -- the process ----------------------------------------------------------------------------------------------

    async def ensure(self) -> None:
        self.asked.append("ensure")
        self.running = True

    async def kill(self) -> None:
        self.asked.append("kill")
        self.die()

    async def close(self) -> None:
        self.closed = True
        await super().close()

    def _new_engine(self) -> Engine:
        real = Engine(self.home, self.backend)
        # Made at the first request, within the event loop of the test.
        self._app: Starlette | None = None
        return real

    def _listening(self) -> Starlette | None:
        if self.running and self._app is None:
            self._app = Api(self._real, self.sources).app()  # type: ignore[arg-type]
        return self._app if self.running else None

    def _connect(self) -> Connection:
        return Connection(self._transport)

    def _has_process(self) -> bool:
        return self.running

    def embody(self) -> None:
        """Let a process stand for the engine's, so that it can :meth:`die`."""
        self._body = subprocess.Popen(["sleep", "600"])

    def die(self) -> None:
        """The engine's process is killed in the middle of whatever it does."""
        if self._body is not None:
            self._body.kill()
            self._body.wait()
            self._body = None
        if self._training is not None:
            self._training.close()
        self.running = False
        self._transport.break_off()
        self._real = self._new_engine()

    def ends(self) -> None:
        """The engine's process begins to end, as one that is terminated does."""
        self._real.end()

    def who(self) -> dict[str, Any]:
        """The process that writes the journal."""
        process = psutil.Process(self._body.pid if self._body else None)
        return {"pid": process.pid, "process_started": process.create_time()}

    # -- what was asked, in a word each ---------------------------------------------------------------------------

    async def call(self, operation: Call[Request, Answer], request: Request) -> Answer:
        if word := self._word(operation, request):
            self.asked.append(word)
        return await super().call(operation, request)

    async def stream(
        self, operation: Stream[Request, Item], request: Request, request_id: str = ""
    ) -> AsyncGenerator[Item]:
        if operation is not EngineApi.facts:
            self._last_stream = request_id
            self.asked.append(self._word(operation, request))
        async with aclosing(super().stream(operation, request, request_id)) as items:
            async for item in items:
                yield item

    def _word(self, operation: Call[Any, Any] | Stream[Any, Any], request: Any) -> str:
        """A request as tests name it; empty for what screens ask all the time."""
        match name := operation.path.removeprefix("/"):
            case "status" | "facts":
                return ""
            case "train":
                return f"train on {request.launch.devices}" if request.launch else "train"
            case "resume":
                return f"resume {request.run}"
            case "queue":
                return " ".join([f"queue {request.action}", *map(str, request.ids)]) if request else ""
            case "control":
                value = [] if request.value is None else [f"{request.value:g}"]
                return " ".join([request.action, *value, *["release"] * request.release])
            case "stop":
                return "stop" if request.save else "discard"
            case "cancel":
                return "cancel" if request.id == self._last_stream else "cancel what another one asked for"
            case "fetch" | "tree":
                return f"{name} {request.source}"
            case "examples":
                return f"examples {request.start} {request.count} {request.search}".strip()
        return name

    # -- what it is doing -----------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return self._real.status().state

    @property
    def paused(self) -> str:
        return self._real.status().paused

    @property
    def run(self) -> RunFolder | None:
        """The run that is live, or was last."""
        return self.backend.run.run_folder if self.backend.run else None

    @property
    def _training(self) -> ScriptedTraining | None:
        training = self._real.training
        assert training is None or isinstance(training, ScriptedTraining)
        return training

    @property
    def _live(self) -> ScriptedTraining:
        assert self._training is not None, "no run is live"
        return self._training

    # -- what a test calls: a run ---------------------------------------------------------------------------------

    def begin(self, recipe: Recipe, *, max_steps: int = 100) -> RunFolder:
        """Start a run as another terminal does."""
        run = self._real.train(recipe)
        self._live.max_steps = max_steps
        return run

    def goes_on(self, step: int, checkpoint: str | None = None) -> None:
        """The run that was resumed, if need be by another terminal, begins to write, from this step on."""
        if self._training is None:
            assert self.run is not None
            self._real.resume(self.run.id)
        self._live.open().write(
            "run_resumed", run=self._live.run_folder.id, step=step, checkpoint=checkpoint, **self.who()
        )

    def stand(self, why: str) -> None:
        """The run pauses by itself, its model in memory."""
        self._live.controls.enter_pause(why)

    def reports(self, progress: Progress) -> None:
        """The live run's progress, as the engine's status tells it."""
        self._live.progress = progress

    def obey(self, step: int) -> None:
        """Do what was asked so far, after this step, as far as it can be told by the journal."""
        controls = self._live.controls
        while command := controls.take():
            if command.action == "resume":
                if controls.paused:
                    controls.leave_pause()
                    self.write("resumed", step=step)
                continue
            value = {} if command.value is None else {"value": command.value}
            self.write("control", action=command.action, step=step, **value)
            match command.action:
                case "pause" if command.release:
                    controls.paused = "Paused; GPU memory released."
                    self.write("paused", step=step, reason=controls.paused, release=True)
                case "pause":
                    controls.enter_pause("Paused; model kept in memory.")
                    self.write("paused", step=step, reason=controls.paused, release=False)
                case "checkpoint":
                    self.write("checkpoint", step=step, path=f"checkpoint-{step}")
                case "max_steps":
                    self._live.max_steps = int(command.value or 0)
                    self.phase("training", step / self._live.max_steps, max_steps=self._live.max_steps)

    def write(self, event: str, **fields: Any) -> None:
        """Append any event to the live run's journal."""
        journal = self._live.journal
        assert journal is not None
        journal.write(event, **fields)

    def phase(
        self,
        phase: str,
        fraction: float | None = None,
        detail: str = "",
        eta_seconds: float | None = None,
        **more: Any,
    ) -> None:
        progress = Progress(phase=phase, fraction=fraction, detail=detail, eta_seconds=eta_seconds)
        self.reports(progress)
        self.write("phase", **progress.model_dump(), **more)

    def step(self, step: int, loss: float, **more: Any) -> None:
        """One optimizer step, with figures that follow from its number alone."""
        max_steps = self._live.max_steps
        fields: dict[str, Any] = {
            "step": step,
            "max_steps": max_steps,
            "epoch": round(step / max_steps, 4),
            "loss": loss,
            "learning_rate": 2e-4 * (1 - step / (max_steps + 1)),
            "grad_norm": 0.83,
            "tokens": step * 1500,
            "tokens_per_second": 3100.0,
            "seconds": 0.5,
            "vram": None,
            "host": {"rss": int(1.25 * GIB), "peak": int(1.5 * GIB)},
            "eta_seconds": round((max_steps - step) * 0.5, 1),
        }
        self.write("step", **(fields | more))

    def evaluated(self, step: int, loss: float, perplexity: float, *, best: bool = False) -> None:
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
        run = self._live.run_folder
        kept = reason in ("finished", "early_stopping", "stopped")
        if kept:
            run.adapter.mkdir(exist_ok=True)
        self.write(
            "run_ended",
            reason=reason,
            run=run.id,
            adapter=str(run.adapter) if kept else None,
            step=step,
            kept_step=step if kept_step is None else kept_step,
            measured=measured,
        )
        self._live.end()

    def fail(self, message: str, cure: str = "", traceback: str = "", kind: str = "error") -> None:
        self.write("error", kind=kind, message=message, cure=cure, traceback=traceback)
        self.finish("error")

    # -- what a test calls: a reply, an evaluation or a download --------------------------------------------------

    def replies_elsewhere(self) -> None:
        """Another terminal asks for a reply, which :meth:`end` ends."""
        request = ReplyRequest(target="another", messages=[Message(role="user", content="Hello?")])
        self._real.reply(request, lambda piece: None, lambda error: None)

    def load(self, phase: str, fraction: float | None = None, detail: str = "") -> None:
        self._script.put(Progress(phase=phase, fraction=fraction, detail=detail))

    def say(self, text: str, reasoning: str = "") -> None:
        self._script.put(ReplyPiece(text=text, reasoning=reasoning))

    def end(
        self,
        reason: str = "end",
        *,
        tokens: int = 42,
        context: int = 2048,
        left_out: int = 0,
        message: Message | None = None,
    ) -> None:
        """End the reply with its figures."""
        piece = last_piece(reason, tokens=tokens, context=context, left_out=left_out)
        self._script.put(piece.model_copy(update={"message": message}))
        self._script.put(None)

    def found(self, file: Path) -> None:
        """The evaluation ends; it is kept in this file."""
        self._script.put(file)

    def break_off(self, error: WorkbenchError) -> None:
        """The reply, evaluation or download ends with an error."""
        self._script.put(error)


def broken_off(root: Path) -> ScriptedEngine:
    """An engine that was killed after step 12 of 100."""
    engine = ScriptedEngine(Home(root))
    engine.embody()
    engine.begin(Recipe(), max_steps=100)
    engine.phase("training", 0.0, max_steps=100)
    engine.step(12, 2.0)
    engine.die()
    return engine
