"""What shape a record has, read from its columns, and how it becomes a conversation or plain text."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from workbench.errors import WorkbenchError

# A message holds "role" (system, user or assistant) and "content". A user message of an instruction record with an
# input also holds the two apart ("instruction", "input"), for templates that set them apart.
Message = dict[str, str]
Conversation = list[Message]

FormatKind = Literal["instruction", "prompt", "question", "messages", "sharegpt", "text"]

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}

# Column names by the part they play, likeliest first.
_NAMES: dict[FormatKind, dict[str, tuple[str, ...]]] = {
    "messages": {"messages": ("messages", "conversation", "dialogue", "conversations")},
    "sharegpt": {"messages": ("conversations", "conversation", "messages")},
    "instruction": {
        "prompt": ("instruction",),
        "reply": ("response", "output", "answer", "completion"),
        "input": ("input", "context"),
        "system": ("system", "system_prompt"),
    },
    "prompt": {
        "prompt": ("prompt",),
        "reply": ("completion", "response", "output", "answer"),
        "system": ("system", "system_prompt"),
    },
    "question": {
        "prompt": ("question", "query"),
        "reply": ("answer", "response", "output", "answers"),
        "system": ("system", "system_prompt"),
    },
    "text": {"text": ("text", "content", "document", "quote")},
}
_NEEDED = {
    "messages": ("messages",),
    "sharegpt": ("messages",),
    "instruction": ("prompt", "reply"),
    "prompt": ("prompt", "reply"),
    "question": ("prompt", "reply"),
    "text": ("text",),
}
PARTS = ("prompt", "input", "reply", "system", "messages", "text")


class BadRecord(Exception):  # noqa: N818  (a reason to skip, not a failure)
    """A record that cannot be trained on; the message says why."""


@dataclass(frozen=True)
class RecordFormat:
    """Which column plays which part, and why this was taken to be so."""

    kind: FormatKind
    columns: Mapping[str, str]
    reason: str


def detect(
    columns: Collection[str],
    sample: Mapping[str, Any],
    asked: str = "auto",
    by_hand: Mapping[str, str] | None = None,
    origin: str = "The data",
) -> RecordFormat:
    """The format of records with these columns.

    Args:
        columns: every column seen in the first records.
        sample: the first record; tells role/content from from/value where both would be in one column.
        asked: a kind of format, or ``auto``.
        by_hand: part → column, which goes before any name.

    Raises:
        WorkbenchError: nothing fits, or a column named by hand does not exist.
    """
    if by_hand:
        return _by_hand(columns, sample, by_hand, origin)
    if asked != "auto":
        found = _match(asked, columns)  # type: ignore[arg-type]
        if found is None:
            wanted = " and ".join(" or ".join(_NAMES[asked][part][:3]) for part in _NEEDED[asked])  # type: ignore[index]
            raise WorkbenchError(
                f"{origin} has no columns for format {asked}: found {_listed(columns)}, expected {wanted}.",
                "Set data.format to auto, or name the columns in data.columns.",
                kind="data_format",
            )
        return RecordFormat(asked, found, f"format {asked} set in the recipe; {_shown(found)}")  # type: ignore[arg-type]
    for kind in _NAMES:
        found = _match(kind, columns)
        if found is None or not _fits(kind, sample.get(found.get("messages", ""))):
            continue
        return RecordFormat(kind, found, _because(kind, found))
    raise WorkbenchError(
        f"The columns of {origin} match no known record format: {_listed(columns)}.",
        "Name the columns in data.columns, such as {prompt: title, reply: body} or {text: body}.",
        kind="data_format",
    )


def _by_hand(
    columns: Collection[str], sample: Mapping[str, Any], by_hand: Mapping[str, str], origin: str
) -> RecordFormat:
    for part, column in by_hand.items():
        if part not in PARTS:
            raise WorkbenchError(
                f"data.columns has an unknown part {part!r}.",
                f"Parts are {', '.join(PARTS)}.",
                kind="data_format",
            )
        if column not in columns:
            raise WorkbenchError(
                f"{origin} has no column {column!r} (data.columns: {part}).",
                f"Its columns are {_listed(columns)}.",
                kind="data_format",
            )
    kind: FormatKind
    if "messages" in by_hand:
        kind = "sharegpt" if _fits("sharegpt", sample.get(by_hand["messages"])) else "messages"
    elif "text" in by_hand:
        kind = "text"
    elif "prompt" in by_hand and "reply" in by_hand:
        kind = "prompt"
    else:
        raise WorkbenchError(
            "data.columns sets neither prompt and reply, nor messages, nor text.",
            "Set one of these, such as data.columns={prompt: title, reply: body}.",
            kind="data_format",
        )
    return RecordFormat(kind, dict(by_hand), f"columns set in the recipe; {_shown(by_hand)}")


def _match(kind: FormatKind, columns: Collection[str]) -> dict[str, str] | None:
    folded = {column.strip().lower(): column for column in reversed(list(columns))}
    found = {}
    for part, names in _NAMES[kind].items():
        column = next((folded[name] for name in names if name in folded), None)
        if column is not None:
            found[part] = column
        elif part in _NEEDED[kind]:
            return None
    return found


def _fits(kind: FormatKind, value: Any) -> bool:
    """Whether a list of turns is in this kind's spelling; anything fits a kind without a list of turns."""
    if kind not in ("messages", "sharegpt"):
        return True
    turn = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
    return ("role" in turn) if kind == "messages" else ("from" in turn)


def _because(kind: FormatKind, found: Mapping[str, str]) -> str:
    if kind == "messages":
        return f"column {found['messages']} has turns with role and content"
    if kind == "sharegpt":
        return f"column {found['messages']} has turns with from and value (ShareGPT)"
    if kind == "text":
        return f"column {found['text']} is plain text; there is no response column"
    return _shown(found)


def _shown(found: Mapping[str, str]) -> str:
    return "the " + ", ".join(f"{part} is in {column}" for part, column in found.items())


def _listed(columns: Collection[str]) -> str:
    names = [repr(column) if column.isprintable() else ascii(column) for column in list(columns)[:12]]
    return ", ".join(names) + (" …" if len(columns) > 12 else "") if names else "none"


def convert(record: Mapping[str, Any], form: RecordFormat) -> Conversation | str:
    """A record as a conversation that holds at least one reply, or as plain text.

    Raises:
        BadRecord: with the reason, naming the column or turn at fault.
    """
    if form.kind == "text":
        return _text(record, form.columns["text"], needed=True)
    if form.kind in ("messages", "sharegpt"):
        return _turns(record.get(form.columns["messages"]), form)
    prompt = _text(record, form.columns["prompt"], needed=True)
    reply = _text(record, form.columns["reply"], needed=True)
    extra = _text(record, form.columns["input"]) if "input" in form.columns else ""
    system = _text(record, form.columns["system"]) if "system" in form.columns else ""
    user = {"role": "user", "content": prompt}
    if extra:
        user = {"role": "user", "content": f"{prompt}\n\n{extra}", "instruction": prompt, "input": extra}
    start = [{"role": "system", "content": system}] if system else []
    return [*start, user, {"role": "assistant", "content": reply}]


def _text(record: Mapping[str, Any], column: str, needed: bool = False) -> str:
    value = record.get(column)
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    text = "" if missing else as_text(value, f"column {column}")
    if needed and not text.strip():
        raise BadRecord(f"column {column} is {'missing' if column not in record else 'empty'}")
    return text


def as_text(value: Any, where: str) -> str:
    """Text from a value: strings as they are, numbers written out.

    Raises:
        BadRecord: the value is neither, or holds half a surrogate pair, which is no text.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BadRecord(f"{where} is {_kind_of(value)}, expected text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRecord(f"{where} is not valid UTF-8") from None
    return value


def _kind_of(value: Any) -> str:
    names = {bool: "a boolean", dict: "an object", list: "a list", type(None): "nothing", bytes: "bytes"}
    return names.get(type(value), f"a {type(value).__name__}")


def _turns(value: Any, form: RecordFormat) -> Conversation:
    column = form.columns["messages"]
    role_key, text_key = ("from", "value") if form.kind == "sharegpt" else ("role", "content")
    if not isinstance(value, list) or not value:
        raise BadRecord(f"column {column} is {'empty' if not value else _kind_of(value)}, expected a list of turns")
    turns: Conversation = []
    for number, turn in enumerate(value, start=1):
        where = f"turn {number} of {column}"
        if not isinstance(turn, dict):
            raise BadRecord(f"{where} is {_kind_of(turn)}, expected an object with {role_key} and {text_key}")
        given = turn.get(role_key)
        if not isinstance(given, str) or not given:
            raise BadRecord(f"{where} has no {role_key}")
        role = _ROLES.get(given.lower())
        if role is None:
            raise BadRecord(f"{where} has the unknown role {given[:40]!r}")
        turns.append({"role": role, "content": _content(turn.get(text_key), where)})
    _check_order(turns)
    return turns


def _content(value: Any, where: str) -> str:
    """A turn's text; a list of text parts, as multimodal sets have it, is joined."""
    if isinstance(value, list) and value:
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
            raise BadRecord(f"{where} has parts that are not text")
        value = "".join(part["text"] for part in value)
    if value is None:
        raise BadRecord(f"{where} has no text")
    return as_text(value, where)


def _check_order(turns: Conversation) -> None:
    for number, (before, turn) in enumerate(pairwise(turns), start=2):
        if turn["role"] == "system":
            raise BadRecord(f"turn {number} is a system prompt; only the first turn may be one")
        if turn["role"] == before["role"]:
            raise BadRecord(f"turns {number - 1} and {number} are both {turn['role']} turns")
    replies = [turn for turn in turns if turn["role"] == "assistant"]
    if not replies:
        raise BadRecord("there is no assistant turn")
    if not all(turn["content"].strip() for turn in replies):
        raise BadRecord("a reply is empty")
