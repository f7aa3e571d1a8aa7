"""The event types of a run's journal, and how a line of the journal is decoded into one.

Journals of other versions stay readable: an unknown field goes into ``more``, an unknown event becomes
:class:`Unknown`, and a field that an older version did not write has its default.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import NotRequired

import msgspec
from typing_extensions import TypedDict  # pydantic needs this one up to Python 3.11

from workbench.errors import WorkbenchError

FORMAT = 2
"""Version of the journal format, written in :class:`RunStarted` and :class:`RunResumed`; version 1 did not write it."""

Number = float | str | None
"""A number that may not be finite: JSON has no NaN, so the journal writes ``"nan"`` and ``"inf"`` as text."""


class PredictedPeak(TypedDict, total=False):
    """Predicted peak memory of the training in bytes; ``terms`` are its parts, ``method`` is trace or closed-form.

    ``length`` is the record length in tokens that it was predicted for, ``host_bytes`` what checkpoints in host memory
    take of it.
    """

    allocated_bytes: int
    reserved_bytes: int
    terms: dict[str, int]
    method: str
    length: int
    host_bytes: int


class MeasuredPeak(TypedDict, total=False):
    """Measured peak memory in bytes: PyTorch's ``allocated`` and ``reserved``, and the driver's ``nvml``.

    ``resting`` is what was allocated before the first step.
    """

    allocated: int
    reserved: int
    resting: int | None
    nvml: int | None


class Event(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True, forbid_unknown_fields=True
):
    """Base of all events: one line of a journal.

    Attributes:
        seq: its number in the journal, from 0; -1 before it is written.
        time: Unix time in seconds.
        more: fields that this version does not know.
    """

    seq: int = -1
    time: float = 0.0
    more: dict[str, object] = {}


class RunStarted(Event, frozen=True, tag="run_started"):
    """The run starts. ``pid`` and ``process_started`` identify the process that writes the journal.

    ``host`` is the machine that it runs on, and ``job`` its number there, if it is a job of Slurm.
    """

    run: str = ""
    model: str = ""
    recipe_hash: str = ""
    recipe: Mapping[str, object] = {}
    versions: Mapping[str, str] = {}
    hardware: Mapping[str, object] = {}
    pid: int = 0
    process_started: float = 0.0
    host: str = ""
    job: str = ""
    format: int = 1


class RunResumed(Event, frozen=True, tag="run_resumed"):
    """The run goes back to the checkpoint of ``step`` and continues; 0 means from its start."""

    run: str = ""
    step: int = 0
    checkpoint: str | None = None
    versions: Mapping[str, str] = {}
    pid: int = 0
    process_started: float = 0.0
    host: str = ""
    job: str = ""
    format: int = 1


class Phase(Event, frozen=True, tag="phase"):
    """The run's current phase (loading, tokenizing, training, …), with facts that became known in it.

    Attributes:
        fraction: progress of the phase, 0 to 1; None if unknown. eta_seconds: how long the rest will take.
        chosen: the values that the run chose for settings left to it (``auto``), by dotted key; ``reasons`` says why.
        padded_because: why the loss is not computed in the fastest way; ``loss_check`` says how far it was from the
            model's own when both were compared (:mod:`workbench.engine.model.loss_check.check`).
        predicted: the predicted peak memory.
        conditions: what the numbers depend on, compared on resume, see
            :mod:`workbench.engine.training.session.resume_check`.
        counts: record and token counts of the tokenized data.
        peak_flops: the device's peak FLOP/s; ``no_peak`` says why it is unknown.
    """

    phase: str = ""
    fraction: float | None = None
    detail: str = ""
    eta_seconds: float | None = None
    max_steps: int | None = None
    base: str | None = None
    compute_dtype: str | None = None
    adapter_dtype: str | None = None
    processes: int | None = None
    padding_free: bool | None = None
    padded_because: str | None = None
    loss_check: str | None = None
    kernels: str | None = None
    compiled: bool | None = None
    compile_seconds: float | None = None
    trainable_parameters: int | None = None
    chosen: Mapping[str, object] | None = None
    reasons: list[str] | None = None
    predicted: PredictedPeak | None = None
    conditions: Mapping[str, object] | None = None
    counts: Mapping[str, object] | None = None
    peak_flops: float | None = None
    no_peak: str | None = None


class Rewards(TypedDict):
    """Means over pairs of responses: rewards, their difference, and the share of pairs with the chosen one higher.

    A reward is beta times the log-ratio between the model and the reference; without a reference, beta times the
    log-probability. Of unpaired responses, ``chosen`` is the mean over the good ones and ``rejected`` over the bad
    ones, None if there were none, and ``accuracy`` the share on the right side of the divergence.

    Attributes:
        kl: the estimated divergence from the reference, in nats per response.
        nll: the negative log-likelihood per token that is part of the loss.
    """

    chosen: Number
    rejected: Number
    margin: Number
    accuracy: float
    kl: NotRequired[float]
    nll: NotRequired[float]


class Step(Event, frozen=True, tag="step"):
    """A logged point of the training curve, covering the steps since the last point.

    Attributes:
        loss: mean over these steps, in nats per token, without the router's balancing loss; of preference training,
            per pair.
        router_aux_loss: that loss, mean over the micro-batches of these steps, if it is part of the gradient.
        accuracy: share of texts whose likeliest label is the right one; of classification only.
        rewards: of preference training only.
        tokens: tokens processed since the start of the run, without padding.
        seconds: training time since the last point; ``parts`` splits it into data, forward, backward, ….
        padding: share of the computed positions that were padding.
        flops: FLOP/s that the model needed; ``mfu`` and ``hfu`` are shares of the device's peak.
        vram: PyTorch's ``allocated``, ``reserved`` and ``peak`` in bytes. host: ``rss`` and ``peak`` in bytes.
    """

    step: int
    max_steps: int = 0
    epoch: float | None = None
    loss: Number = None
    learning_rate: float | None = None
    grad_norm: Number = None
    token_accuracy: Number = None
    accuracy: Number = None
    rewards: Rewards | None = None
    router_aux_loss: Number = None
    tokens: int = 0
    tokens_per_second: float | None = None
    seconds: float = 0.0
    parts: Mapping[str, float] | None = None
    padding: float | None = None
    flops: float | None = None
    mfu: float | None = None
    hfu: float | None = None
    vram: Mapping[str, object] | None = None
    host: Mapping[str, object] | None = None
    eta_seconds: float | None = None


def memory_bytes(memory: Mapping[str, object] | None, name: str) -> int:
    """An entry of :attr:`Step.vram` or :attr:`Step.host` in bytes; 0 if it is missing."""
    size = memory.get(name) if memory else None
    return size if isinstance(size, int) else 0


class Eval(Event, frozen=True, tag="eval"):
    """An evaluation on held-out records after ``step`` steps; at step 0 it is the base model's.

    That of preference training has ``rewards``, that of classification ``accuracy`` and ``macro_f1``, the mean F1 of
    all labels; neither has perplexity or token accuracy.
    """

    step: int = 0
    loss: Number = None
    perplexity: Number = None
    token_accuracy: Number = None
    accuracy: Number = None
    macro_f1: Number = None
    rewards: Rewards | None = None
    records: int = 0
    tokens: int = 0
    best: bool = False


class Checkpoint(Event, frozen=True, tag="checkpoint"):
    """A checkpoint was written."""

    step: int = 0
    path: str = ""


class Sample(Event, frozen=True, tag="sample"):
    """Sampled replies to the run's fixed prompts, each with ``prompt`` and ``reply``."""

    step: int = 0
    replies: list[dict[str, object]] = []


class RunWarning(Event, frozen=True, tag="warning"):
    """A warning for the user; ``kind`` is a stable name for programs."""

    message: str = ""
    kind: str = ""
    step: int | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    problem: str | None = None


class Hint(Event, frozen=True, tag="hint"):
    """A suggestion derived from the loss curve or from the step times."""

    step: int = 0
    kind: str = ""
    message: str = ""


class Control(Event, frozen=True, tag="control"):
    """A user's request to the live run (pause, new learning rate, …), carried out after ``step``."""

    action: str = ""
    step: int = 0
    value: float | None = None


class Paused(Event, frozen=True, tag="paused"):
    """The run is paused; ``release`` says whether its GPU memory was released."""

    step: int | None = None
    reason: str = ""
    release: bool = False


class Resumed(Event, frozen=True, tag="resumed"):
    """A paused run continues."""

    step: int | None = None


class RunError(Event, frozen=True, tag="error"):
    """The error that ended the run: what is wrong, and what to do about it."""

    message: str = ""
    cure: str = ""
    kind: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: WorkbenchError, traceback: str = "") -> "RunError":
        """The event for an error."""
        return cls(message=error.message, cure=error.cure, kind=error.kind, traceback=traceback)


class RunEnded(Event, frozen=True, tag="run_ended"):
    """The run is over.

    Attributes:
        reason: ``finished``, ``early_stopping``, ``stopped``, ``discarded`` or ``error``.
        adapter: the adapter's folder; None if none was saved. ``kept_step`` is the step its weights are from.
        measured: measured peak memory; None without a GPU.
    """

    reason: str = "finished"
    run: str = ""
    adapter: str | None = None
    measured: MeasuredPeak | None = None
    step: int | None = None
    kept_step: int | None = None


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event type that this version does not know, with all its fields."""

    event: str
    fields: dict[str, object]
    seq: int = -1
    time: float = 0.0


Known = (
    RunStarted
    | RunResumed
    | Phase
    | Step
    | Eval
    | Checkpoint
    | Sample
    | RunWarning
    | Hint
    | Control
    | Paused
    | Resumed
    | RunError
    | RunEnded
)
AnyEvent = Known | Unknown

_decoder = msgspec.json.Decoder(Known)
EVENT_TYPES: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in Known.__args__}
"""The event types by name, in the order of their definition."""


_ENVELOPE = ("seq", "time", "more")


def decode(line: bytes) -> AnyEvent | None:
    """Decode a line of a journal; None if it is damaged."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return _decode_leniently(line)


def to_fields(event: AnyEvent) -> dict[str, object]:
    """Convert an event to JSON data: ``seq``, ``time`` and ``event`` first, without fields that are None."""
    if isinstance(event, Unknown):
        return {**event.fields, "seq": event.seq, "time": event.time, "event": event.event}
    named = ((name, getattr(event, name)) for name in event.__struct_fields__ if name not in _ENVELOPE)
    present = {name: value for name, value in named if value is not None}
    return {"seq": event.seq, "time": event.time, "event": name_of(event), **present, **event.more}


def name_of(event: AnyEvent) -> str:
    """The name of an event's type as written in the journal."""
    return event.event if isinstance(event, Unknown) else str(event.__struct_config__.tag)


def _decode_leniently(line: bytes) -> AnyEvent | None:
    """Decode a line that has unknown fields, an unknown event type, or values of an unexpected type."""
    try:
        value = json.loads(line)  # accepts lone surrogates, unlike the strict decoder
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return None
    seq, time = value.get("seq"), value.get("time")
    event_type = EVENT_TYPES.get(value["event"])
    if event_type is not None:
        valid, more = _split_fields(event_type, value)
        with suppress(msgspec.ValidationError):  # a required field is missing
            return msgspec.convert({**valid, "more": more}, event_type)  # type: ignore[return-value]
    return Unknown(
        event=value["event"],
        fields=value,
        seq=seq if isinstance(seq, int) else -1,
        time=time if isinstance(time, int | float) else 0.0,
    )


def _split_fields(event_type: type[Event], fields: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Split the fields of a line into those that are valid for the event type, and all others."""
    types = {field.name: field.type for field in msgspec.structs.fields(event_type) if field.name != "more"}
    valid: dict[str, object] = {}
    more: dict[str, object] = {}
    for name, value in fields.items():
        if name == "event":
            continue
        try:
            valid[name] = msgspec.convert(value, types[name])
        except (KeyError, msgspec.ValidationError):
            more[name] = value
    return valid, more
