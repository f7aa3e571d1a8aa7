"""The requests and answers of the engine's API, as pydantic models that are sent as JSON.

:mod:`workbench.engine.client.engine_api` declares which operation takes and returns which.
"""

from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from workbench.planning.launch import Launch
from workbench.progress import Progress

# Exit code of an engine that finds another one running for its home.
ALREADY_RUNNING = 3

# The header with the id by which a streamed answer can be cancelled.
REQUEST_ID = "X-Request-ID"

EngineState = Literal["idle", "loading", "training", "paused", "replying", "evaluating"]
ControlAction = Literal[
    "pause", "resume", "checkpoint", "evaluate", "sample", "stop_sampling", "learning_rate", "max_steps"
]


def new_request_id() -> str:
    """A unique request id."""
    return uuid4().hex


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class DeviceFacts(_Wire):
    """The device that the engine computes on, with its memory in bytes."""

    kind: Literal["cuda", "cpu"]
    name: str
    total_bytes: int


class LoadedModel(_Wire):
    """The model in the engine's memory: a base, the folder of its active adapter, and those of all attached ones."""

    source: str
    method: str
    adapter: str | None = None
    adapters: list[str] = []
    bytes: int = 0


class EngineStatus(_Wire):
    """The state of the engine.

    Attributes:
        run: id of the live run. paused: why it is paused; empty if it is not.
        allocated, reserved: GPU memory in bytes, as PyTorch counts it.
        queued: number of queued runs. queue_held: why the queue is on hold; empty if it is not.
    """

    pid: int
    version: str
    started: float
    state: EngineState = "idle"
    run: str | None = None
    run_folder: str | None = None
    stopping: bool = False
    paused: str = ""
    progress: Progress | None = None
    model: LoadedModel | None = None
    device: DeviceFacts | None = None
    allocated: int = 0
    reserved: int = 0
    queued: int = 0
    queue_held: str = ""


class TrainRequest(_Wire):
    """Start a run: in the processes and on the GPUs of ``launch``, or without it in the engine's own process."""

    recipe: dict[str, Any]
    launch: Launch | None = None


class ResumeRequest(_Wire):
    """Resume a run, given its id, prefix or folder. Without ``launch`` it uses the processes it was started with."""

    run: str
    launch: Launch | None = None


class StartedRun(_Wire):
    """A run that was started or resumed. ``seq`` is the number of the last event in its journal before that."""

    run: str
    folder: str
    seq: int = -1


class StopRequest(_Wire):
    """Stop the live run within one micro-batch. ``save``: keep its adapter and a checkpoint."""

    save: bool = True


class ShutdownRequest(_Wire):
    """End the engine's process. ``stop``: stop and save a live run first; otherwise a busy engine refuses."""

    stop: bool = False


class ControlRequest(_Wire):
    """An action on the live run, carried out between two steps; ``stop_sampling`` takes effect within one token.

    ``value`` is the new learning rate or number of steps. ``release``: a pause also releases the model's memory;
    resuming then loads the model again.
    """

    action: ControlAction
    value: float | None = Field(default=None, gt=0)
    release: bool = False


class CancelRequest(_Wire):
    """Cancel a reply, evaluation, download or count, by the id of its request."""

    id: str


class FactsRequest(_Wire):
    """Compute the statistics of a recipe's data, as its model tokenizes them.

    Attributes:
        recipe: as plain data; its sections model, data, training and objective are used.
        fetch: download the tokenizer or a dataset if necessary; off: refuse what is not on the engine's machine.
        show: the number of records to return as examples.
    """

    recipe: dict[str, Any]
    fetch: bool = False
    show: int = Field(default=3, ge=0, le=1000)


class ColumnsRequest(_Wire):
    """Find the columns of a recipe's data."""

    recipe: dict[str, Any]


class ExamplesRequest(_Wire):
    """Return records as formatted training text.

    Attributes:
        start, count: how many records to skip, and to return after them.
        search: return only records whose text contains this; empty for all.
        invalid: also return records that are not used for training, with the reason.
    """

    recipe: dict[str, Any]
    start: int = Field(default=0, ge=0)
    count: int = Field(default=1, ge=1, le=1000)
    search: str = ""
    invalid: bool = False


class TaskSettings(_Wire):
    """Which of lm-eval's tasks to evaluate on.

    Attributes:
        names: of tasks, groups or tags; ``general`` for a small fixed set.
        limit: the most items of each task; None for all, or for 200 of each in ``general``.
        folder: with further tasks as YAML files; empty for none.
        num_fewshot: examples before each item; None for what each task says.
        chat_template: put prompts into the run's chat template.
    """

    names: list[str] = Field(min_length=1, max_length=256)
    limit: int | None = Field(default=None, ge=1)
    folder: str = ""
    num_fewshot: int | None = Field(default=None, ge=0)
    chat_template: bool = False


class EvaluateRequest(_Wire):
    """Evaluate a run's base and adapter, and other adapters, on the same held-out records and prompts.

    Attributes:
        run: id, prefix or folder.
        data: the data section of a recipe; None for the run's own held-out records. Template and system prompt are
            always those of the run.
        checkpoints: also evaluate every checkpoint of the run.
        adapters: further adapters of the same base: runs, checkpoints (``run@40``) or adapter folders.
        prompts: fixed prompts to reply to in addition to those of the records; None for the default ones.
        records: the maximum number of records; 0 for all. replies: to how many of them the models reply.
        base: source of the base, in the place of the one that run and adapters name.
        tasks: evaluate on lm-eval's tasks, and not on records and prompts; None for these.
    """

    run: str
    base: str = ""
    tasks: TaskSettings | None = None
    data: dict[str, Any] | None = None
    checkpoints: bool = False
    adapters: list[str] = Field(default=[], max_length=64)
    prompts: list[str] | None = None
    records: int = Field(default=256, ge=0)
    replies: int = Field(default=20, ge=0, le=100_000)
    max_new_tokens: int = Field(default=128, ge=1, le=32768)
    seed: int = Field(default=0, ge=0, lt=2**63)


class Evaluated(_Wire):
    """Where a finished evaluation was saved."""

    file: Path


class Message(_Wire):
    """A turn of a conversation, in the form of transformers' chat templates.

    Attributes:
        reasoning_content: the reasoning of a response, where the model's template writes it apart from the answer.
        tool_calls: calls of tools in a response, as in OpenAI's API.
        name: of a tool's result, the function's.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning_content: str = ""
    tool_calls: list[dict[str, Any]] = []
    name: str = ""

    @model_serializer(mode="wrap")
    def _sparse(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A template takes a key that is there for one that is used.
        return {key: value for key, value in dump(self).items() if value or key in ("role", "content")}


class Sampling(_Wire):
    """How the next token is chosen. ``temperature`` 0 always takes the most likely one (greedy).

    ``min_p`` excludes tokens whose probability is below this share of the most likely one's; ``repetition_penalty``
    above 1 makes tokens that occurred before less likely.
    """

    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=1_000_000)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=5)
    max_new_tokens: int = Field(default=256, ge=1, le=32768)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class AdapterPart(_Wire):
    """One adapter of a weighted sum; ``target`` as in :class:`ReplyRequest`."""

    target: str
    weight: float = Field(default=1.0, ge=-2, le=2)


MISSING_BASE = "missing_base"
"""The kind of the error for an adapter whose base cannot be had under the name that the adapter has for it."""


class ReplyRequest(_Wire):
    """A conversation to continue.

    Attributes:
        target: what replies: a run (id, prefix or folder), one of its checkpoints (``run@40``), an adapter folder, or
            the source of a base model.
        tools: JSON schemas of the functions that the model may call. Calls are returned, not executed.
        adapter: off: the base replies without the target's adapter, from the same weights in memory.
        scale: multiplies the effect of the adapters.
        combine: adapters whose weighted sum replies instead of the target's own.
        on: another target, whose base to use as it is in memory. An adapter of another model is then refused; one that
            was trained on the same model in another precision is not.
        base: the source of a base to use instead of the one that the adapters name. Then the shapes of the weights
            must match, whatever the names.
        merged: load the base in 16 bits and add the adapter to its weights. Replies are faster; other adapters need
            the base to be loaded again.
    """

    target: str
    messages: list[Message]
    tools: list[dict[str, Any]] = []
    adapter: bool = True
    scale: float = Field(default=1.0, ge=0, le=2)
    combine: list[AdapterPart] = Field(default=[], max_length=16)
    on: str = ""
    base: str = ""
    merged: bool = False
    sampling: Sampling = Field(default_factory=Sampling)


class ReplyPiece(_Wire):
    """A piece of the reply.

    The first piece has the numbers of the prompt and no text. Pieces of text follow. The last one is ``done``: it has
    the timings, the reason, and the whole reply.

    Attributes:
        text, reasoning: new text of the answer and of the reasoning before it.
        message: the whole reply, as the message that continues the conversation.
        notice: what was done to the base so that an adapter fits; sent before the first piece.
        reason: why the reply ended.
        prompt_tokens, context_tokens: of the prompt, and of the model's context; 0 if that is unknown.
        left_out: earlier questions that were left out with their replies, so that the prompt fits the context.
        tokens: of the reply; given in the last piece, like the timings.
    """

    text: str = ""
    reasoning: str = ""
    message: Message | None = None
    notice: str = ""
    done: bool = False
    reason: Literal["", "end", "length", "cancelled"] = ""
    prompt_tokens: int = 0
    context_tokens: int = 0
    left_out: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    tokens_per_second: float = 0.0
