"""What the terminal and the engine say to each other: plain data, JSON on the wire.

========================  =====================================================================================
``GET  /status``          → :class:`EngineStatus`; always answers, whatever the engine is busy with
``POST /train``           :class:`TrainRequest` → ``{"run": id, "folder": path}``; 409 while the engine is busy
``POST /stop``            ``{"save": bool}`` → ``{}``; the run ends within one micro-step
``POST /control``         :class:`ControlRequest` → ``{}``; done between two steps of the run; its journal says when
``POST /resume``          :class:`ResumeRequest` → ``{"run": id, "folder": path, "seq": n}``; the run goes on from its
                          newest whole checkpoint; ``seq`` is the number of its journal's last event so far
``GET  /queue``           → :class:`~workbench.planning.queue.QueueState`: the queued and the last started runs
``POST /queue``           :class:`~workbench.planning.queue.QueueRequest` → the queue after it
``POST /reply``           :class:`ReplyRequest` → server-sent :class:`Progress` and :class:`ReplyPiece` events
``POST /evaluate``        :class:`EvaluateRequest` → server-sent :class:`Progress` events, and last ``evaluation``:
                          ``{"file": path}`` of what was kept in the run's folder
``POST /cancel``          :class:`CancelRequest` → ``{}``; ends the reply, evaluation, download or count with this
                          request id, and no other; an id that is not in progress changes nothing
``POST /fetch``           ``model`` section of a recipe → server-sent :class:`Progress` events; the model is then local
``POST /tree``            ``model`` section of a recipe → the :class:`~workbench.models.skeleton.Skeleton` as JSON
``POST /facts``           :class:`FactsRequest` → server-sent :class:`Progress` events, and
                          :class:`~workbench.data.facts.DataFacts` as JSON: a sample's, then the exact ones. Needs no
                          model, only its tokenizer; answered whatever else the engine is busy with
``POST /examples``        :class:`ExamplesRequest` → a list of :class:`~workbench.data.facts.Example` as JSON
``POST /unload``          → ``{}``; gives the model's memory back
``POST /shutdown``        ``{"stop": bool}`` → ``{}``; the engine process ends; 409 while busy, unless told to stop
========================  =====================================================================================

A request that is answered by events carries an id of the client's own choice in the header :data:`REQUEST_ID`. To
cancel that id ends the work; so does closing the stream.

A refusal is a status ≥ 400 with a :class:`~workbench.errors.WorkbenchError` as JSON; inside a stream it is an event
``error`` with the same data.
"""

from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from workbench.planning.launch import Launch
from workbench.progress import Progress

# Exit code of an engine that finds another one at work on its home.
ALREADY_RUNNING = 3

# The header with the id by which a streamed answer can be cancelled.
REQUEST_ID = "X-Request-ID"

EngineState = Literal["idle", "loading", "training", "paused", "replying", "evaluating"]
ControlAction = Literal["pause", "resume", "checkpoint", "evaluate", "sample", "learning_rate", "max_steps"]


def new_request_id() -> str:
    """An id that no other request has."""
    return uuid4().hex


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class DeviceFacts(_Wire):
    """The device the engine computes on. Bytes are bytes."""

    kind: Literal["cuda", "cpu"]
    name: str
    total_bytes: int


class LoadedModel(_Wire):
    """What lies in the engine's memory: a base, the folder of the adapter that is active, and of all on the base."""

    source: str
    method: str
    adapter: str | None = None
    adapters: list[str] = []
    bytes: int = 0


class EngineStatus(_Wire):
    """The engine at one moment. ``run`` is the id of the live run, ``paused`` says why it stands still, empty while it
    does not; ``allocated`` and ``reserved`` are PyTorch's. ``queued`` runs wait for this one's end, ``queue_held`` says
    why the next one does not start by itself, empty while it does.
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
    """With ``launch``, several processes train, or GPUs that were chosen; without it the engine's own one does."""

    recipe: dict[str, Any]
    launch: Launch | None = None


class ResumeRequest(_Wire):
    """``run``: id, prefix or folder. It goes on as it was started, unless ``launch`` says otherwise."""

    run: str
    launch: Launch | None = None


class ControlRequest(_Wire):
    """What to do with the live run between two steps.

    ``value`` is the new learning rate, or the new number of steps; ``release`` lets a pause give the model's memory
    back, which costs loading it again.
    """

    action: ControlAction
    value: float | None = Field(default=None, gt=0)
    release: bool = False


class CancelRequest(_Wire):
    """Which reply, evaluation, download or count is to end: the id that its request carried."""

    id: str


class FactsRequest(_Wire):
    """What to count: the model, data and training sections of a recipe.

    With ``fetch`` off, a tokenizer or data set that is not on the engine's machine is refused. ``show`` is the number
    of records to give as examples.
    """

    recipe: dict[str, Any]
    fetch: bool = False
    show: int = Field(default=3, ge=0, le=1000)


class ExamplesRequest(_Wire):
    """Records as they are fed, from the ``start``-th on; those only whose text holds ``search``."""

    recipe: dict[str, Any]
    start: int = Field(default=0, ge=0)
    count: int = Field(default=1, ge=1, le=1000)
    search: str = ""


class EvaluateRequest(_Wire):
    """Judge a run: its base, its adapter, and others, on the same held-out tokens and the same prompts.

    Attributes:
        run: id, prefix or folder.
        data: the data section of a recipe; None for the run's own held-out records. Template and system prompt are
            always those of the run.
        checkpoints: every checkpoint of the run takes part. adapters: and so do these, each a run, ``run@40`` or an
            adapter folder, of the same base.
        prompts: questions asked besides those of the records; None for a few that are always the same.
        records: how many at most; 0 for all. replies: to how many of them a reply is written.
    """

    run: str
    data: dict[str, Any] | None = None
    checkpoints: bool = False
    adapters: list[str] = Field(default=[], max_length=64)
    prompts: list[str] | None = None
    records: int = Field(default=256, ge=0)
    replies: int = Field(default=20, ge=0, le=100_000)
    max_new_tokens: int = Field(default=128, ge=1, le=32768)
    seed: int = Field(default=0, ge=0, lt=2**63)


class Message(_Wire):
    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(_Wire):
    """How the next token is drawn. ``temperature`` 0 takes the likeliest one (greedy).

    ``min_p`` leaves out tokens less likely than this share of the likeliest one; ``repetition_penalty`` above 1 makes
    tokens that were there already less likely.
    """

    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=1_000_000)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=5)
    max_new_tokens: int = Field(default=256, ge=1, le=32768)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class AdapterPart(_Wire):
    """One adapter of a sum: a target as in :class:`ReplyRequest`, and how much it counts."""

    target: str
    weight: float = Field(default=1.0, ge=-2, le=2)


class ReplyRequest(_Wire):
    """A conversation to continue.

    ``target`` is a run (id, prefix or folder), one of its checkpoints (``run@40``), an adapter folder, or the source of
    a base model. With ``adapter`` off the base answers, from the same weights in memory. With ``combine`` the sum of
    these adapters answers in the place of the target's own; ``scale`` counts for all of them.

    ``on`` names another target whose base is to serve, as it lies in memory: an adapter of another model is then
    refused, and one that was trained on the same model in another precision is not. ``merged`` loads the base in 16
    bits and puts the adapter into its weights, which answers faster and serves nothing else.
    """

    target: str
    messages: list[Message]
    adapter: bool = True
    scale: float = Field(default=1.0, ge=0, le=2)
    combine: list[AdapterPart] = Field(default=[], max_length=16)
    on: str = ""
    merged: bool = False
    sampling: Sampling = Field(default_factory=Sampling)


class ReplyPiece(_Wire):
    """A piece of the reply, or with ``done`` its end: the figures and why it ended.

    The first piece has no text; it tells the length of the prompt, what the context holds (0 where that is not known),
    and how many earlier questions were left out, with their replies, to make room.
    """

    text: str = ""
    done: bool = False
    reason: Literal["", "end", "length", "cancelled"] = ""
    prompt_tokens: int = 0
    context_tokens: int = 0
    left_out: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    tokens_per_second: float = 0.0
