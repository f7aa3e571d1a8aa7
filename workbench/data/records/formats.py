"""The formats of records: which column holds each part."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from workbench.data.records.layouts import layout_in_words, turn_keys
from workbench.data.records.preferences import supervised_columns
from workbench.recipe.sections.data_source import FormatKind

PREFERENCE: Literal["preference"] = "preference"
"""The kind of format of pairs; see :class:`PairFormat`."""
UNPAIRED: Literal["unpaired"] = "unpaired"
"""The kind of format of unpaired responses; see :class:`UnpairedFormat`."""
LABELED: Literal["labeled"] = "labeled"
"""The kind of format of texts with a label; see :class:`LabeledFormat`."""

Shape = Literal["text", "segments", "messages", "prompt"]
"""``text``: plain text. ``segments``: text in segments. ``messages``: turns. ``prompt``: a prompt and a response."""


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
    def shape(self) -> Shape:
        """What the records consist of, which the part that they need most says."""
        shapes: tuple[Shape, ...] = ("text", "segments", "messages")
        return next((shape for shape in shapes if shape in self.columns), "prompt")

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


@dataclass(frozen=True)
class LabeledFormat:
    """The format of texts or conversations with a label.

    Attributes:
        columns: by part, the column that holds it; ``input`` is a second text.
        reason: why this format was chosen, for the user.
        record: how a text or conversation is read, as if there were no label.
    """

    columns: Mapping[str, str]
    reason: str
    record: RecordFormat
    kind: Literal["labeled"] = LABELED


AnyFormat = RecordFormat | PairFormat | UnpairedFormat | LabeledFormat


def pair_format(columns: Mapping[str, str], samples: Sequence[Mapping[str, object]], reason: str) -> PairFormat:
    """The format of pairs whose parts are in these columns."""

    def side(name: str, other: str) -> RecordFormat:
        parts = supervised_columns(columns, samples, name)
        kind: FormatKind = "prompt" if "prompt" in parts else "text" if "text" in parts else "messages"
        # The other side is no part of this one, and no unused column either.
        return RecordFormat(kind, {**parts, "other side": columns[other]}, reason)

    return PairFormat(dict(columns), reason, side("chosen", "rejected"), side("rejected", "chosen"))


def unpaired_format(columns: Mapping[str, str], samples: Sequence[Mapping[str, object]], reason: str) -> UnpairedFormat:
    """The format of labeled responses whose parts are in these columns."""
    kind: FormatKind = "prompt"
    if "messages" in columns:
        layout = turn_layout(samples, columns["messages"])
        kind = layout[0] if layout is not None else "messages"
    # The label is no part of the response, and no unused column either.
    return UnpairedFormat(dict(columns), reason, RecordFormat(kind, columns, reason))


def turn_layout(samples: Sequence[Mapping[str, object]], column: str) -> tuple[FormatKind, str] | None:
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


def parts_text(found: Mapping[str, str]) -> str:
    """The columns of a format, for the user."""
    return "the " + ", ".join(f"{part} {_verb(part)} in {column}" for part, column in found.items())


def _verb(part: str) -> str:
    return "are" if part in ("messages", "segments", "tools") else "is"


def names_text(names: Collection[str]) -> str:
    """The first names of columns, for the user."""
    shown = [repr(name) if name.isprintable() else ascii(name) for name in list(names)[:12]]
    return ", ".join(shown) + (" …" if len(names) > 12 else "") if shown else "none"
