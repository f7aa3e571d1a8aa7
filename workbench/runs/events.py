"""What happens in a run, one type an event: the lines of its journal.

Fields that a newer version writes, and events that only it knows, are kept: the first in ``more``, the second as
:class:`Unknown`. A field that an older version did not write has its default.
"""

import json
from contextlib import suppress
from typing import Any

import msgspec

FORMAT = 2
"""Version of the journal, in :class:`RunStarted` and :class:`RunResumed`. 1 had none written down."""

Number = float | str | None
"""A number that may not be finite: JSON has no NaN, so the journal writes ``"nan"`` and ``"inf"`` as text."""


class Event(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True, forbid_unknown_fields=True
):
    """One line of a journal.

    Attributes:
        seq: its number in the journal, from 0; -1 before it is written.
        time: Unix time in seconds.
        more: fields that this version does not know.
    """

    seq: int = -1
    time: float = 0.0
    more: dict[str, Any] = {}


class RunStarted(Event, frozen=True, tag="run_started"):
    """The run begins. ``pid`` and ``process_started`` identify the process that writes the journal."""

    run: str = ""
    model: str = ""
    recipe_hash: str = ""
    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    hardware: dict[str, Any] = {}
    pid: int = 0
    process_started: float = 0.0
    format: int = 1


class RunResumed(Event, frozen=True, tag="run_resumed"):
    """The run goes back to the checkpoint of ``step`` and continues; 0 means from its start."""

    run: str = ""
    step: int = 0
    checkpoint: str | None = None
    versions: dict[str, str] = {}
    pid: int = 0
    process_started: float = 0.0
    format: int = 1


class Phase(Event, frozen=True, tag="phase"):
    """What the run is doing, and facts that became known with it.

    Attributes:
        fraction: how much of it is done, 0 to 1; None where the end is not known.
        chosen: what the run decided of what its recipe left open, by dotted keys; ``reasons`` says why.
        predicted: the predicted peak: ``allocated_bytes``, ``reserved_bytes``, ``terms``, ``method``, ``length``.
        conditions: see :mod:`workbench.engine.training.resume_check`.
        counts: the records as counted while they were tokenized.
        peak_flops: what the device could do at most, FLOP/s; ``no_peak`` says why it is unknown.
    """

    phase: str = ""
    fraction: float | None = None
    detail: str = ""
    max_steps: int | None = None
    base: str | None = None
    compute_dtype: str | None = None
    adapter_dtype: str | None = None
    processes: int | None = None
    padding_free: bool | None = None
    padded_because: str | None = None
    kernels: str | None = None
    compiled: bool | None = None
    compile_seconds: float | None = None
    trainable_parameters: int | None = None
    chosen: dict[str, Any] | None = None
    reasons: list[str] | None = None
    predicted: dict[str, Any] | None = None
    conditions: dict[str, Any] | None = None
    counts: dict[str, Any] | None = None
    peak_flops: float | None = None
    no_peak: str | None = None


class Step(Event, frozen=True, tag="step"):
    """A point of the curve: what the steps since the last point came to.

    Attributes:
        loss: mean over them, nats a token.
        tokens: fed since the start of the run, padding left out.
        seconds: of training since the last point; ``parts`` says where they went.
        padding: share of the computed places that held no token.
        flops: a second that the model needed; ``mfu`` and ``hfu`` as shares of the device's peak.
        vram: PyTorch's ``allocated``, ``reserved`` and ``peak``, bytes. host: ``rss`` and ``peak``, bytes.
    """

    step: int
    max_steps: int = 0
    epoch: float | None = None
    loss: Number = None
    learning_rate: float | None = None
    grad_norm: Number = None
    token_accuracy: Number = None
    tokens: int = 0
    tokens_per_second: float | None = None
    seconds: float = 0.0
    parts: dict[str, float] | None = None
    padding: float | None = None
    flops: float | None = None
    mfu: float | None = None
    hfu: float | None = None
    vram: dict[str, Any] | None = None
    host: dict[str, Any] | None = None
    eta_seconds: float | None = None


class Eval(Event, frozen=True, tag="eval"):
    """A held-out evaluation after ``step`` steps; before the first one it is the base model's own."""

    step: int = 0
    loss: Number = None
    perplexity: Number = None
    token_accuracy: Number = None
    records: int = 0
    tokens: int = 0
    best: bool = False


class Checkpoint(Event, frozen=True, tag="checkpoint"):
    """A checkpoint was written."""

    step: int = 0
    path: str = ""


class Sample(Event, frozen=True, tag="sample"):
    """Replies to the run's fixed prompts: each with ``prompt`` and ``reply``."""

    step: int = 0
    replies: list[dict[str, Any]] = []


class RunWarning(Event, frozen=True, tag="warning"):
    """Something the user should know; ``kind`` names it for programs."""

    message: str = ""
    kind: str = ""
    step: int | None = None
    micro_batch: int | None = None
    accumulation: int | None = None
    problem: str | None = None


class Hint(Event, frozen=True, tag="hint"):
    """What the curve or the times suggest to try."""

    step: int = 0
    kind: str = ""
    message: str = ""


class Control(Event, frozen=True, tag="control"):
    """A request of the user's was carried out after ``step``."""

    action: str = ""
    step: int = 0
    value: float | None = None


class Paused(Event, frozen=True, tag="paused"):
    """The run waits; ``release``: its GPU memory was released."""

    step: int | None = None
    reason: str = ""
    release: bool = False


class Resumed(Event, frozen=True, tag="resumed"):
    """A paused run continues."""

    step: int | None = None


class RunError(Event, frozen=True, tag="error"):
    """What ended the run early: what is wrong, and what to do."""

    message: str = ""
    cure: str = ""
    kind: str = ""
    traceback: str = ""


class RunEnded(Event, frozen=True, tag="run_ended"):
    """The run is over.

    Attributes:
        reason: ``finished``, ``early_stopping``, ``stopped``, ``discarded`` or ``error``.
        adapter: its folder; None where none was kept. ``kept_step`` is the step whose weights it holds.
        measured: peak memory in bytes: ``allocated``, ``reserved``, ``resting``, ``nvml``; None without a GPU.
    """

    reason: str = "finished"
    run: str = ""
    adapter: str | None = None
    measured: dict[str, Any] | None = None
    step: int | None = None
    kept_step: int | None = None


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event that this version does not know, with all its fields."""

    event: str
    fields: dict[str, Any]
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
_TYPES: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in Known.__args__}


_ENVELOPE = ("seq", "time", "more")


def decode(line: bytes) -> AnyEvent | None:
    """The event in a line of a journal; None where it is damaged."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        return _decode_leniently(line)


def to_fields(event: AnyEvent) -> dict[str, Any]:
    """An event as plain data, ``seq``, ``time`` and ``event`` first; fields that are None are left out."""
    if isinstance(event, Unknown):
        return {**event.fields, "seq": event.seq, "time": event.time, "event": event.event}
    named = ((name, getattr(event, name)) for name in event.__struct_fields__ if name not in _ENVELOPE)
    told = {name: value for name, value in named if value is not None}
    return {"seq": event.seq, "time": event.time, "event": name_of(event), **told, **event.more}


def name_of(event: AnyEvent) -> str:
    """The name of an event's type, as the journal has it."""
    return event.event if isinstance(event, Unknown) else str(event.__struct_config__.tag)


def _decode_leniently(line: bytes) -> AnyEvent | None:
    """A line with fields or an event that this version does not know, or with values of another type."""
    try:
        value = json.loads(line)  # knows lone surrogates, as the strict decoder does not
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return None
    seq, time = _whole(value.get("seq")), value.get("time")
    kind = _TYPES.get(value["event"])
    if kind is not None:
        fits, more = _sorted_out(kind, value)
        with suppress(msgspec.ValidationError):  # a field that it cannot do without
            return msgspec.convert({**fits, "more": more}, kind)  # type: ignore[return-value]
    return Unknown(event=value["event"], fields=value, seq=seq, time=time if isinstance(time, int | float) else 0.0)


def _sorted_out(kind: type[Event], value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that a type has, with values that fit; and all others."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind) if field.name != "more"}
    fits, more = {}, {}
    for name, found in value.items():
        if name == "event":
            continue
        try:
            fits[name] = msgspec.convert(found, types[name])
        except (KeyError, msgspec.ValidationError):
            more[name] = found
    return fits, more


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1
