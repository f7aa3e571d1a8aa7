"""Recognizes records of a text and a label, for classification."""

from collections.abc import Collection, Mapping, Sequence

from workbench.data.records.by_hand import by_hand_format
from workbench.data.records.conversation import BadRecord
from workbench.data.records.formats import LabeledFormat, RecordFormat, names_text, parts_text
from workbench.data.records.known_columns import folded_names
from workbench.data.records.values import is_empty, type_in_words
from workbench.errors import WorkbenchError

_TEXTS = (
    "text", "sentence", "content", "review", "tweet", "comment", "utterance", "document", "message", "body", "title",
    "description", "question", "query", "prompt", "instruction", "input",
)  # fmt: skip
# Two texts whose relation is the label.
_BOTH = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
    ("question", "sentence"), ("question", "passage"),
)  # fmt: skip
_MESSAGES = ("messages", "conversations", "conversation")
_LABELS = (
    "label_text", "label_name", "label", "labels", "class", "category", "intent", "emotion", "sentiment", "topic",
    "target", "stars", "rating",
)  # fmt: skip


def detect_labeled(
    columns: Collection[str],
    samples: Sequence[Mapping[str, object]],
    by_hand: Mapping[str, str] | None = None,
    origin: str = "The data",
) -> LabeledFormat:
    """Detect the format of records of a text and a label.

    Args:
        columns, samples, by_hand, origin: as of :func:`workbench.data.records.detect.detect`.

    Raises:
        WorkbenchError: a column is missing, or ``by_hand`` is not valid.
    """
    parts = dict(by_hand or _labeled_columns(columns, origin))
    if "label" not in parts:
        raise WorkbenchError(
            f"data.columns names no label: it sets {', '.join(parts)}.",
            "Add the column of the label, such as data.columns={text: body, label: topic}.",
            kind="data_format",
        )
    beside = ("label", "input") if "text" in parts else ("label",)
    for part in beside:
        if part in parts and parts[part] not in columns:
            raise WorkbenchError(
                f"{origin} has no column {parts[part]!r} (data.columns: {part}).",
                f"Its columns are {names_text(columns)}.",
                kind="data_format",
            )
    mapped = {part: name for part, name in parts.items() if part not in beside}
    record = by_hand_format(columns, samples, mapped, origin)
    if not isinstance(record, RecordFormat) or record.shape == "segments":
        raise WorkbenchError(
            f"data.columns sets {', '.join(mapped)} beside label, and objective.kind classification reads one text or "
            "conversation.",
            "Set text or messages beside label.",
            kind="data_format",
        )
    reason = f"{'columns set in the recipe; ' if by_hand else ''}{parts_text(parts)}"
    # Label and second text are no part of the text, and no unused columns either.
    return LabeledFormat(parts, reason, RecordFormat(record.kind, parts, reason))


def _labeled_columns(columns: Collection[str], origin: str) -> dict[str, str]:
    """The column of each part of records with labels: ``label``, and ``text`` (with ``input`` for a second text) or
    ``messages``.

    Raises:
        WorkbenchError: there is no column for the label, or none for the text.
    """
    folded = folded_names(columns)
    label = next((folded[name] for name in _LABELS if name in folded), None)
    both = next((pair for pair in _BOTH if all(name in folded for name in pair)), None)
    turns = next((folded[name] for name in _MESSAGES if name in folded), None)
    text = next((folded[name] for name in _TEXTS if name in folded), None)
    found = {"text": folded[both[0]], "input": folded[both[1]]} if both else {}
    if not found and (turns or text):
        found = {"messages": turns} if turns else {"text": str(text)}
    if label is None or not found:
        lacking = "label" if label is None else "text"
        raise WorkbenchError(
            f"{origin} has no column that is known to hold the {lacking}: found {names_text(columns)}.",
            "objective.kind classification learns the label of a text. Name the columns in data.columns, such as "
            "{text: body, label: topic}.",
            kind="data_format",
        )
    return {**found, "label": label}


def label_text(value: object, column: str) -> str:
    """A label as text: numbers and truth values too.

    Raises:
        BadRecord: the value is empty, or is no label.
    """
    if is_empty(value):
        raise BadRecord(f"column {column} is empty: no label")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int):
        return str(value).strip()
    raise BadRecord(f"column {column} is {type_in_words(value)}, expected one label")


def in_order(labels: Collection[str], known: Sequence[str] = ()) -> list[str]:
    """Labels in the order of their ids: as ``known``, if it has all of them; else numbers by value, others by name."""
    if known and set(labels) <= set(known):
        return [label for label in known if label in labels]
    if all(label.lstrip("-").isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


def labels_text(counts: Mapping[str, int], most: int = 12) -> str:
    """``negative 10, positive 12``, the rarer ones of many left out."""
    shown = sorted(counts, key=lambda name: -counts[name])[:most] if len(counts) > most else list(counts)
    listed = ", ".join(f"{name} {counts[name]:,}" for name in counts if name in shown)
    return listed + (f" and {len(counts) - most} more" if len(counts) > most else "")
