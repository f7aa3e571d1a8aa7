"""Detects the format of records from their column names and first values."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from workbench.data.records.conversation import BadRecord
from workbench.data.records.turns import ROLES, as_turns, turn_keys
from workbench.data.records.values import is_empty, type_in_words
from workbench.errors import WorkbenchError

FormatKind = Literal["instruction", "prompt", "question", "messages", "sharegpt", "text"]

_SYSTEM = ("system", "system_prompt")
_TOOLS = ("tools", "functions")
_INPUT = ("input", "context")
_HISTORY = ("history",)

# The column names of each part of a record, the likeliest first.
_NAMES: dict[FormatKind, dict[str, tuple[str, ...]]] = {
    "messages": {
        "messages": ("messages", "conversation", "dialogue", "conversations"), "system": _SYSTEM, "tools": _TOOLS,
    },
    "sharegpt": {"messages": ("conversations", "conversation", "messages"), "system": _SYSTEM, "tools": _TOOLS},
    "instruction": {
        "prompt": ("instruction",), "reply": ("response", "output", "answer", "completion"), "input": _INPUT,
        "system": _SYSTEM, "history": _HISTORY, "tools": _TOOLS,
    },
    "prompt": {
        "prompt": ("prompt",), "reply": ("completion", "response", "output", "answer"), "input": _INPUT,
        "system": _SYSTEM, "history": _HISTORY, "tools": _TOOLS,
    },
    "question": {
        "prompt": ("question", "query"), "reply": ("answer", "response", "output", "answers"), "input": _INPUT,
        "system": _SYSTEM, "history": _HISTORY, "tools": _TOOLS,
    },
    "text": {"text": ("text", "content", "document", "quote")},
}  # fmt: skip
_NEEDED: dict[FormatKind, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("messages",),
    "instruction": ("prompt", "reply"),
    "prompt": ("prompt", "reply"),
    "question": ("prompt", "reply"),
    "text": ("text",),
}
PARTS = ("prompt", "input", "reply", "system", "history", "messages", "tools", "text")


@dataclass(frozen=True)
class RecordFormat:
    """The format of records.

    Attributes:
        columns: by part (see ``PARTS``), the column that holds it.
        reason: why this format was chosen, for the user.
    """

    kind: FormatKind
    columns: Mapping[str, str]
    reason: str

    @cached_property
    def used(self) -> frozenset[str]:
        """The columns that hold a part."""
        return frozenset(self.columns.values())


def detect(
    columns: Collection[str],
    samples: Sequence[Mapping[str, object]],
    asked: str = "auto",
    by_hand: Mapping[str, str] | None = None,
    origin: str = "The data",
) -> RecordFormat:
    """Detect the format of records.

    Args:
        columns: all columns of the first records.
        samples: the first records. Their values show whether a column holds turns or text, and whether the turns have
            role and content or, as in ShareGPT, from and value.
        asked: the recipe's ``data.format``: a kind of format, or ``auto``.
        by_hand: the recipe's ``data.columns``, from part to column; if given, ``asked`` and the names do not count.
        origin: names the records in an error.

    Raises:
        WorkbenchError: the records have no known format or not the one asked for, ``by_hand`` is not valid, or the
            records are for preference training.
    """
    if by_hand:
        return _by_hand(columns, samples, by_hand, origin)
    if asked != "auto":
        kind = _as_kind(asked)
        found = _match(kind, columns)
        if found is None:
            expected = " and ".join(" or ".join(_NAMES[kind][part][:3]) for part in _NEEDED[kind])
            raise WorkbenchError(
                f"{origin} has no columns for format {kind}: found {_names_text(columns)}, expected {expected}.",
                "Set data.format to auto, or name the columns in data.columns.",
                kind="data_format",
            )
        return RecordFormat(kind, found, f"format {kind} set in the recipe; {_parts_text(found)}")
    _refuse_kto(columns, samples, origin)
    not_turns = ""
    for kind in _NAMES:
        found = _match(kind, columns)
        if found is None:
            continue
        if "messages" in found:
            keys = _first_keys(samples, found["messages"])
            if keys is None:
                not_turns = not_turns or _why_not_turns(samples, found["messages"])
                continue
            # Turns with the key "role" are of kind messages, those with "from" of kind sharegpt.
            if (keys[0] == "role") != (kind == "messages"):
                continue
        if kind == "text" and "role" in columns:
            raise WorkbenchError(
                f"Each record of {origin} is a single turn.",
                "Write one conversation per record: a list of turns, or an object with messages.",
                kind="data_format",
            )
        return RecordFormat(kind, found, _reason(kind, found, samples))
    _refuse_preferences(columns, samples, origin)
    if not_turns:
        raise WorkbenchError(
            f"{origin}: {not_turns}.",
            'Expected a list of turns such as [{"role": "user", "content": …}, …], or its JSON text.',
            kind="data_format",
        )
    raise WorkbenchError(
        f"The columns of {origin} match no known record format: {_names_text(columns)}.",
        "Name the columns in data.columns, such as {prompt: title, reply: body} or {text: body}.",
        kind="data_format",
    )


def _as_kind(name: str) -> FormatKind:
    return next(kind for kind in get_args(FormatKind) if kind == name)


def _by_hand(
    columns: Collection[str], samples: Sequence[Mapping[str, object]], by_hand: Mapping[str, str], origin: str
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
                f"Its columns are {_names_text(columns)}.",
                kind="data_format",
            )
    kind: FormatKind
    if "messages" in by_hand:
        keys = _first_keys(samples, by_hand["messages"])
        kind = "sharegpt" if keys is not None and keys[0] == "from" else "messages"
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
    return RecordFormat(kind, dict(by_hand), f"columns set in the recipe; {_parts_text(by_hand)}")


def _match(kind: FormatKind, columns: Collection[str]) -> dict[str, str] | None:
    """The column of each part in a format, found by name; None if a part that the format needs has no column."""
    folded = _folded(columns)
    found = {}
    for part, names in _NAMES[kind].items():
        column = next((folded[name] for name in names if name in folded), None)
        if column is not None:
            found[part] = column
        elif part in _NEEDED[kind]:
            return None
    return found


def _folded(columns: Collection[str]) -> dict[str, str]:
    """Columns by their names without regard to case; of names that differ only in case the first counts."""
    return {column.strip().lower(): column for column in reversed(list(columns))}


def _first_keys(samples: Sequence[Mapping[str, object]], column: str) -> tuple[str, str] | None:
    """The keys of role and text in a column's first turn, such as ``("role", "content")``; None if it has no turns."""
    return next((keys for record in samples if (keys := turn_keys(record.get(column))) is not None), None)


def _why_not_turns(samples: Sequence[Mapping[str, object]], column: str) -> str:
    """The reason, for the user, why the values of a column are not turns."""
    value = next((record[column] for record in samples if not is_empty(record.get(column))), None)
    try:
        first = as_turns(value, f"column {column}")[0]
    except BadRecord as error:
        return str(error)
    if not isinstance(first, Mapping):
        return f"turn 1 of column {column} is {type_in_words(first)}, expected an object with role and content"
    return f"turn 1 of column {column} has no role; its keys are {_names_text(list(map(str, first)))}"


def _refuse_preferences(columns: Collection[str], samples: Sequence[Mapping[str, object]], origin: str) -> None:
    """Raise WorkbenchError for pairs of a chosen and a rejected response, as for DPO."""
    folded = _folded(columns)
    if not {"chosen", "rejected"} <= folded.keys():
        return
    chosen = folded["chosen"]
    prompt = folded.get("prompt") or folded.get("question") or folded.get("instruction")
    if _first_keys(samples, chosen) is not None and (prompt is None or _includes_prompt(samples, chosen)):
        setting = f"data.columns={{messages: {chosen}}}"
    elif prompt is not None:
        setting = f"data.columns={{prompt: {prompt}, reply: {chosen}}}"
    else:
        setting = f"data.columns={{text: {chosen}}}"
    raise WorkbenchError(
        f"{origin} holds preference data: pairs of a chosen and a rejected response.",
        f"Supervised training uses one response per prompt. To train on the chosen ones, set {setting}.",
        kind="data_preference",
    )


def _includes_prompt(samples: Sequence[Mapping[str, object]], column: str) -> bool:
    """Whether the turns in a column begin with a prompt, not with the response."""
    for record in samples:
        if turn_keys(record.get(column)) is not None:
            first = as_turns(record[column], "")[0]
            return ROLES.get(str(first.get("role", first.get("from"))).lower()) != "assistant"
    return False


def _refuse_kto(columns: Collection[str], samples: Sequence[Mapping[str, object]], origin: str) -> None:
    """Raise WorkbenchError for completions labelled true or false, as TRL's KTOTrainer takes them."""
    folded = _folded(columns)
    if {"prompt", "completion", "label"} <= folded.keys() and any(
        isinstance(record.get(folded["label"]), bool) for record in samples
    ):
        raise WorkbenchError(
            f"{origin} holds preference data: completions labelled as good or bad (KTO).",
            "Supervised training would learn the bad ones too. Keep the records with label true, "
            "or set data.format to prompt to train on all of them.",
            kind="data_preference",
        )


def _reason(kind: FormatKind, found: Mapping[str, str], samples: Sequence[Mapping[str, object]]) -> str:
    """Why this format was chosen, for the user."""
    if "messages" in found:
        role, text = _first_keys(samples, found["messages"]) or ("role", "content")
        name = " (ShareGPT)" if kind == "sharegpt" else ""
        others = {part: column for part, column in found.items() if part != "messages"}
        others_text = f"; {_parts_text(others)}" if others else ""
        return f"column {found['messages']} has turns with {role} and {text}{name}{others_text}"
    if kind == "text":
        return f"column {found['text']} is plain text; there is no response column"
    return _parts_text(found)


def _parts_text(found: Mapping[str, str]) -> str:
    return "the " + ", ".join(f"{part} is in {column}" for part, column in found.items())


def _names_text(names: Collection[str]) -> str:
    shown = [repr(name) if name.isprintable() else ascii(name) for name in list(names)[:12]]
    return ", ".join(shown) + (" …" if len(names) > 12 else "") if shown else "none"
