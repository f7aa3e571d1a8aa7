"""Detects the format of records from their column names and first values."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from workbench.data.records.conversation import BadRecord
from workbench.data.records.layouts import as_turns, layout_in_words, turn_keys
from workbench.data.records.other_layouts import refuse_other_layouts
from workbench.data.records.preferences import (
    pair_columns,
    refuse_preferences,
    supervised_columns,
    unpaired_columns,
)
from workbench.data.records.tool_calls import is_tools
from workbench.data.records.values import is_empty, type_in_words
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data_source import FormatKind

PREFERENCE: Literal["preference"] = "preference"
"""The kind of format of pairs; see :class:`PairFormat`."""
UNPAIRED: Literal["unpaired"] = "unpaired"
"""The kind of format of unpaired responses; see :class:`UnpairedFormat`."""

_SYSTEM = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions", "available_tools", "function_description")
_INPUT = ("input", "context")
# The reasoning of a response that has a column of its own.
_REASONING = (
    "reasoning_content", "reasoning", "thinking", "complex_cot", "deepseek_thinking_trajectory",
    "thinking_trajectories",
)  # fmt: skip
_REPLY = ("response", "output", "answer", "completion")

# The column names of the parts that a format needs, the likeliest first. A format of prompt and response may have
# several groups: names that go together, so that the response to a problem is its solution, and not its short answer.
_GROUPS: dict[FormatKind, tuple[dict[str, tuple[str, ...]], ...]] = {
    "messages": ({"messages": ("messages", "conversation", "dialogue", "conversations", "chat", "data")},),
    "sharegpt": ({"messages": ("conversations", "conversation", "messages", "data")},),
    "instruction": ({"prompt": ("instruction",), "reply": _REPLY},),
    "prompt": ({"prompt": ("prompt",), "reply": ("completion", "response", "output", "answer", "generation")},),
    "question": (
        {
            "prompt": ("question", "query"),
            "reply": (
                "answer", "response", "output", "deepseek_attempt", "attempt", "long_answer", "answers", "solution",
            ),
        },
        {"prompt": ("problem",), "reply": ("generated_solution", "solution", *_REPLY)},
        {"prompt": ("inputs", "input"), "reply": ("targets", "target", *_REPLY, "content")},
        {"prompt": ("user", "human"), "reply": ("assistant", "gpt", "bot")},
        {"prompt": ("dialogue", "document", "article", "content", "text"), "reply": ("summary", "highlights")},
    ),
    "text": ({"text": ("text", "content", "document", "quote", "raw_content")},),
}  # fmt: skip
# Columns of these names hold turns; those of other names in a format of turns may hold anything.
_TURN_COLUMNS = ("messages", "conversation", "conversations")
_EXTRAS: dict[str, tuple[str, ...]] = {
    "input": _INPUT, "system": _SYSTEM, "history": ("history",), "tools": _TOOLS, "reasoning": _REASONING,
    "chat_template_kwargs": ("chat_template_kwargs",),
}  # fmt: skip
# The parts that a format may have beside those that it needs.
_OPTIONAL: dict[FormatKind, tuple[str, ...]] = {
    "messages": ("system", "tools", "chat_template_kwargs"),
    "sharegpt": ("system", "tools", "chat_template_kwargs"),
    "instruction": ("input", "system", "history", "tools", "reasoning", "chat_template_kwargs"),
    "prompt": ("input", "system", "history", "tools", "reasoning", "chat_template_kwargs"),
    "question": ("input", "system", "history", "tools", "reasoning", "chat_template_kwargs"),
    "text": (),
}
PARTS = (
    "prompt", "input", "reply", "reasoning", "system", "history", "messages", "tools", "text", "chosen", "rejected",
    "label",
)  # fmt: skip
# The parts of pairs beside the two responses.
_PAIR_OPTIONAL = ("prompt", "input", "system", "history", "tools")


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


@dataclass(frozen=True)
class PairFormat:
    """The format of pairs of a chosen and a rejected response.

    Attributes:
        columns: by part, the column that holds it.
        reason: why this format was chosen, for the user.
        chosen, rejected: how one side of a pair is read, as if there were no other.
    """

    columns: Mapping[str, str]
    reason: str
    chosen: RecordFormat
    rejected: RecordFormat
    kind: Literal["preference"] = PREFERENCE


@dataclass(frozen=True)
class UnpairedFormat:
    """The format of responses that a label calls good or bad.

    Attributes:
        columns: by part, the column that holds it; ``label`` is true for good responses.
        reason: why this format was chosen, for the user.
        response: how a response is read, as if there were no label.
    """

    columns: Mapping[str, str]
    reason: str
    response: RecordFormat
    kind: Literal["unpaired"] = UNPAIRED


AnyFormat = RecordFormat | PairFormat | UnpairedFormat


def detect(
    columns: Collection[str],
    samples: Sequence[Mapping[str, object]],
    asked: str = "auto",
    by_hand: Mapping[str, str] | None = None,
    origin: str = "The data",
) -> AnyFormat:
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
    if asked == "auto" and (pair := pair_columns(columns, samples)) is not None:
        return _pair_format(pair, samples, _parts_text(pair))
    if asked == "auto" and (unpaired := unpaired_columns(columns, samples)) is not None:
        unpaired = _with_optional(unpaired, columns, samples)
        return _unpaired_format(unpaired, samples, _parts_text(unpaired))
    if asked != "auto":
        kind = _as_kind(asked)
        found = next(_matches(kind, columns, samples), None)
        if found is None:
            expected = " and ".join(" or ".join(names[:3]) for names in _GROUPS[kind][0].values())
            raise WorkbenchError(
                f"{origin} has no columns for format {kind}: found {_names_text(columns)}, expected {expected}.",
                "Set data.format to auto, or name the columns in data.columns.",
                kind="data_format",
            )
        return RecordFormat(kind, found, f"format {kind} set in the recipe; {_parts_text(found)}")
    refuse_preferences(columns, samples, origin)
    not_turns = ""
    for kind in _GROUPS:
        for found in _matches(kind, columns, samples):
            if "messages" in found:
                layout = _layout(samples, found["messages"])
                if layout is None and found["messages"].lower() in _TURN_COLUMNS:
                    not_turns = not_turns or _why_not_turns(samples, found["messages"])
                if layout is None or layout[0] != kind:
                    continue
            if kind == "text" and "role" in columns:
                raise WorkbenchError(
                    f"Each record of {origin} is a single turn.",
                    "Write one conversation per record: a list of turns, or an object with messages.",
                    kind="data_format",
                )
            return RecordFormat(kind, found, _reason(kind, found, samples))
    if not_turns:
        raise WorkbenchError(
            f"{origin}: {not_turns}.",
            'Expected a list of turns such as [{"role": "user", "content": …}, …], or its JSON text.',
            kind="data_format",
        )
    refuse_other_layouts(columns, origin)
    raise WorkbenchError(
        f"The columns of {origin} match no known record format: {_names_text(columns)}.",
        "Name the columns in data.columns, such as {prompt: title, reply: body} or {text: body}.",
        kind="data_format",
    )


def _as_kind(name: str) -> FormatKind:
    return next(kind for kind in get_args(FormatKind) if kind == name)


def _by_hand(
    columns: Collection[str], samples: Sequence[Mapping[str, object]], by_hand: Mapping[str, str], origin: str
) -> AnyFormat:
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
    if "chosen" in by_hand or "rejected" in by_hand:
        return _pair_by_hand(samples, by_hand)
    if "label" in by_hand:
        response = _by_hand(columns, samples, {part: name for part, name in by_hand.items() if part != "label"}, origin)
        assert isinstance(response, RecordFormat)
        if response.kind == "text":
            raise WorkbenchError(
                "data.columns sets label beside text: plain text has no response that the label could be about.",
                "Set prompt and reply, or messages, beside label.",
                kind="data_format",
            )
        return _unpaired_format(by_hand, samples, f"columns set in the recipe; {_parts_text(by_hand)}")
    kind: FormatKind
    if "messages" in by_hand:
        layout = _layout(samples, by_hand["messages"])
        kind = layout[0] if layout is not None else "messages"
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
    if others := [part for part in by_hand if part not in (*_GROUPS[kind][0], *_OPTIONAL[kind])]:
        main = " and ".join(_GROUPS[kind][0])
        optional = [part for part in _OPTIONAL[kind] if part in PARTS]
        raise WorkbenchError(
            f"data.columns sets {', '.join(others)} beside {main}: such a record has no place for it.",
            f"Records with {main} also take {', '.join(optional) or 'no other part'}. Leave out the others.",
            kind="data_format",
        )
    return RecordFormat(kind, dict(by_hand), f"columns set in the recipe; {_parts_text(by_hand)}")


def _pair_by_hand(samples: Sequence[Mapping[str, object]], by_hand: Mapping[str, str]) -> PairFormat:
    others = [part for part in by_hand if part not in (*_PAIR_OPTIONAL, "chosen", "rejected")]
    if others or not {"chosen", "rejected"} <= by_hand.keys():
        lacking = " and ".join(part for part in ("chosen", "rejected") if part not in by_hand)
        raise WorkbenchError(
            f"data.columns sets {', '.join(others)} beside chosen and rejected: a pair has no place for it."
            if others
            else f"data.columns lacks {lacking}: a pair has a chosen and a rejected response.",
            f"Pairs take chosen, rejected, {', '.join(_PAIR_OPTIONAL)}.",
            kind="data_format",
        )
    return _pair_format(by_hand, samples, f"columns set in the recipe; {_parts_text(by_hand)}")


def _pair_format(columns: Mapping[str, str], samples: Sequence[Mapping[str, object]], reason: str) -> PairFormat:
    def side(name: str, other: str) -> RecordFormat:
        parts = supervised_columns(columns, samples, name)
        kind: FormatKind = "prompt" if "prompt" in parts else "text" if "text" in parts else "messages"
        # The other side is no part of this one, and no unused column either.
        return RecordFormat(kind, {**parts, "other side": columns[other]}, reason)

    return PairFormat(dict(columns), reason, side("chosen", "rejected"), side("rejected", "chosen"))


def _unpaired_format(
    columns: Mapping[str, str], samples: Sequence[Mapping[str, object]], reason: str
) -> UnpairedFormat:
    kind: FormatKind = "prompt"
    if "messages" in columns:
        layout = _layout(samples, columns["messages"])
        kind = layout[0] if layout is not None else "messages"
    # The label is no part of the response, and no unused column either.
    return UnpairedFormat(dict(columns), reason, RecordFormat(kind, columns, reason))


def _with_optional(
    parts: dict[str, str], columns: Collection[str], samples: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    """Parts with the columns of those that records may have beside them."""
    folded, found = folded_names(columns), dict(parts)
    for part in _OPTIONAL["messages" if "messages" in parts else "prompt"]:
        free = (folded[name] for name in _EXTRAS[part] if name in folded and folded[name] not in found.values())
        if (column := next((column for column in free if _fits(part, column, samples)), None)) is not None:
            found[part] = column
    return found


def _matches(
    kind: FormatKind, columns: Collection[str], samples: Sequence[Mapping[str, object]]
) -> Iterator[dict[str, str]]:
    """The column of each part in a format, found by name, for each group of names that the columns have."""
    folded = folded_names(columns)
    for group in _GROUPS[kind]:
        found: dict[str, str] = {}
        for part, names in group.items():
            column = next((folded[name] for name in names if name in folded), None)
            if column is not None:
                found[part] = column
        if len(found) < len(group):
            continue
        for part in _OPTIONAL[kind]:
            free = (folded[name] for name in _EXTRAS[part] if name in folded and folded[name] not in found.values())
            column = next((column for column in free if _fits(part, column, samples)), None)
            if column is not None:
                found[part] = column
        yield found


def _fits(part: str, column: str, samples: Sequence[Mapping[str, object]]) -> bool:
    """Whether a column holds what its name says: some have ``on`` or ``off`` in ``reasoning``, or prose for tools."""
    values = [record.get(column) for record in samples]
    if part == "reasoning":
        texts = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
        return any(isinstance(text, str) and " " in text.strip() for text in texts)
    # What is wrong with a column that is named tools is said of each record.
    return part != "tools" or column.strip().lower() == _TOOLS[0] or any(map(is_tools, values))


def folded_names(columns: Collection[str]) -> dict[str, str]:
    """Columns by their names without regard to case; of names that differ only in case the first counts."""
    return {column.strip().lower(): column for column in reversed(list(columns))}


def _layout(samples: Sequence[Mapping[str, object]], column: str) -> tuple[FormatKind, str] | None:
    """The kind of a column's turns, and in words how they are stored; None if it has none."""
    for record in samples:
        value = record.get(column)
        if (keys := turn_keys(value)) is not None:
            kind: FormatKind = "sharegpt" if keys[0] == "from" else "messages"
            return (
                kind,
                f"has turns with {keys[0]} and {keys[1] or 'no text'}{' (ShareGPT)' if kind == 'sharegpt' else ''}",
            )
        if (words := layout_in_words(value)) is not None:
            return "messages", words
    return None


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


def _reason(kind: FormatKind, found: Mapping[str, str], samples: Sequence[Mapping[str, object]]) -> str:
    """Why this format was chosen, for the user."""
    if "messages" in found:
        layout = _layout(samples, found["messages"])
        others = {part: column for part, column in found.items() if part != "messages"}
        others_text = f"; {_parts_text(others)}" if others else ""
        return f"column {found['messages']} {layout[1] if layout else 'has turns'}{others_text}"
    if kind == "text":
        return f"column {found['text']} is plain text; there is no response column{_transcript_hint(found, samples)}"
    return _parts_text(found)


def _transcript_hint(found: Mapping[str, str], samples: Sequence[Mapping[str, object]]) -> str:
    """For text that is a conversation: the setting that trains on its responses only."""
    layout = _layout(samples[:8], found["text"])
    if layout is None:
        return ""
    return f" (it {layout[1]}: data.columns={{messages: {found['text']}}} trains on the responses only)"


def _parts_text(found: Mapping[str, str]) -> str:
    return "the " + ", ".join(f"{part} is in {column}" for part, column in found.items())


def _names_text(names: Collection[str]) -> str:
    shown = [repr(name) if name.isprintable() else ascii(name) for name in list(names)[:12]]
    return ", ".join(shown) + (" …" if len(names) > 12 else "") if shown else "none"
