"""Detects the format of records from their column names and first values."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import get_args

from workbench.data.records.by_hand import by_hand_format
from workbench.data.records.conversation import BadRecord
from workbench.data.records.formats import (
    AnyFormat,
    RecordFormat,
    names_text,
    pair_format,
    parts_text,
    turn_layout,
    unpaired_format,
)
from workbench.data.records.known_columns import EXTRAS, GROUPS, OPTIONAL, TURN_COLUMNS, folded_names
from workbench.data.records.layouts import as_turns
from workbench.data.records.other_layouts import refuse_other_layouts
from workbench.data.records.preferences import pair_columns, refuse_preferences, unpaired_columns
from workbench.data.records.segments import is_segments
from workbench.data.records.tool_calls import is_tools
from workbench.data.records.turns import read_turns
from workbench.data.records.values import is_empty, type_in_words
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data_source import FormatKind


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
        return by_hand_format(columns, samples, by_hand, origin)
    if asked == "auto" and (pair := pair_columns(columns, samples)) is not None:
        return pair_format(pair, samples, parts_text(pair))
    if asked == "auto" and (unpaired := unpaired_columns(columns, samples)) is not None:
        unpaired = _with_optional(unpaired, columns, samples)
        return unpaired_format(unpaired, samples, parts_text(unpaired))
    if asked != "auto":
        kind = _as_kind(asked)
        found = next(_matches(kind, columns, samples), None)
        if found is None:
            expected = " and ".join(" or ".join(names[:3]) for names in GROUPS[kind][0].values())
            raise WorkbenchError(
                f"{origin} has no columns for format {kind}: found {names_text(columns)}, expected {expected}.",
                "Set data.format to auto, or name the columns in data.columns.",
                kind="data_format",
            )
        return RecordFormat(kind, found, f"format {kind} set in the recipe; {parts_text(found)}")
    refuse_preferences(columns, samples, origin)
    not_turns = ""
    for kind in GROUPS:
        for found in _matches(kind, columns, samples):
            if not _holds(kind, found, samples):
                column = found.get("messages", "")
                if column.lower() in TURN_COLUMNS and turn_layout(samples, column) is None:
                    not_turns = not_turns or _why_not_turns(samples, column)
                continue
            if "text" in found and "role" in columns:
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
    turns = next((column for column in columns if _holds_responses(samples, column)), "")
    raise WorkbenchError(
        f"The columns of {origin} match no known record format: {names_text(columns)}.",
        f"The column {turns} holds turns: set data.columns={{messages: {turns}}}."
        if turns
        else "Name the columns in data.columns, such as {prompt: title, reply: body} or {text: body}.",
        kind="data_format",
    )


def _holds_responses(samples: Sequence[Mapping[str, object]], column: str) -> bool:
    """Whether a column holds turns, one of which is a response."""
    if turn_layout(samples, column) is None:
        return False
    try:
        turns = [turn for record in samples if column in record for turn in read_turns(record[column], column)]
    except BadRecord:
        return False
    return any(turn.message["role"] == "assistant" for turn in turns)


def _as_kind(name: str) -> FormatKind:
    return next(kind for kind in get_args(FormatKind) if kind == name)


def _with_optional(
    parts: dict[str, str], columns: Collection[str], samples: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    """Parts with the columns of those that records may have beside them."""
    folded, found = folded_names(columns), dict(parts)
    for part in OPTIONAL["messages" if "messages" in parts else "prompt"]:
        free = (folded[name] for name in EXTRAS[part] if name in folded and folded[name] not in found.values())
        if (column := next((column for column in free if _fits(part, column, samples)), None)) is not None:
            found[part] = column
    return found


def _matches(
    kind: FormatKind, columns: Collection[str], samples: Sequence[Mapping[str, object]]
) -> Iterator[dict[str, str]]:
    """The column of each part in a format, found by name, for each group of names that the columns have."""
    folded = folded_names(columns)
    for group in GROUPS[kind]:
        found: dict[str, str] = {}
        for part, names in group.items():
            column = next((folded[name] for name in names if name in folded), None)
            if column is not None:
                found[part] = column
        if len(found) < len(group):
            continue
        for part in OPTIONAL[kind]:
            free = (folded[name] for name in EXTRAS[part] if name in folded and folded[name] not in found.values())
            column = next((column for column in free if _fits(part, column, samples)), None)
            if column is not None:
                found[part] = column
        yield found


def _holds(kind: FormatKind, found: Mapping[str, str], samples: Sequence[Mapping[str, object]]) -> bool:
    """Whether the columns hold turns or segments where their names say so.

    The formats ``messages`` and ``sharegpt`` share names of columns: the keys of the turns tell them apart.
    """
    if "segments" in found:
        # Transcripts of speech have segments too, with times instead of labels.
        return any(is_segments(record.get(found["segments"])) for record in samples)
    if "messages" not in found:
        return True
    layout = turn_layout(samples, found["messages"])
    return layout is not None and (layout[0] == kind or kind not in ("messages", "sharegpt"))


def _fits(part: str, column: str, samples: Sequence[Mapping[str, object]]) -> bool:
    """Whether a column holds what its name says: some have ``on`` or ``off`` in ``reasoning``, or prose for tools."""
    values = [record.get(column) for record in samples]
    if part == "reasoning":
        texts = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
        return any(isinstance(text, str) and " " in text.strip() for text in texts)
    # What is wrong with a column that is named tools is said of each record.
    return part != "tools" or column.strip().lower() == "tools" or any(map(is_tools, values))


def _why_not_turns(samples: Sequence[Mapping[str, object]], column: str) -> str:
    """The reason, for the user, why the values of a column are not turns."""
    value = next((record[column] for record in samples if not is_empty(record.get(column))), None)
    try:
        first = as_turns(value, f"column {column}")[0]
    except BadRecord as error:
        return str(error)
    if not isinstance(first, Mapping):
        return f"turn 1 of column {column} is {type_in_words(first)}, expected an object with role and content"
    return f"turn 1 of column {column} has no role; its keys are {names_text(list(map(str, first)))}"


def _reason(kind: FormatKind, found: Mapping[str, str], samples: Sequence[Mapping[str, object]]) -> str:
    """Why this format was chosen, for the user."""
    if "messages" in found:
        layout = turn_layout(samples, found["messages"])
        others = {part: column for part, column in found.items() if part != "messages"}
        others_text = f"; {parts_text(others)}" if others else ""
        return f"column {found['messages']} {layout[1] if layout else 'has turns'}{others_text}"
    if "segments" in found:
        return f"column {found['segments']} has segments with label and text, which no template surrounds"
    if "text" in found:
        return f"column {found['text']} is plain text; there is no response column{_transcript_hint(found, samples)}"
    return parts_text(found)


def _transcript_hint(found: Mapping[str, str], samples: Sequence[Mapping[str, object]]) -> str:
    """For text that is a conversation: the setting that trains on its responses only."""
    layout = turn_layout(samples[:8], found["text"])
    if layout is None:
        return ""
    return f" (it {layout[1]}: data.columns={{messages: {found['text']}}} trains on the responses only)"
