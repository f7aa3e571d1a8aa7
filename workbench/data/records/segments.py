"""Reads text in segments, each labeled as trained or not, which no template surrounds: Axolotl's ``input_output``."""

from collections.abc import Mapping

from workbench.data.records.conversation import BadRecord, Segment, Segments
from workbench.data.records.layouts import listed
from workbench.data.records.values import as_flag, as_text, is_empty, type_in_words

_EXPECTED = "a list of segments"


def is_segments(value: object) -> bool:
    """Whether a value is, or stores as text, a list of objects with a label and a text."""
    try:
        first = listed(value, "", _EXPECTED)[0]
    except BadRecord:
        return False
    return isinstance(first, Mapping) and {"label", "text"} <= first.keys()


def read_segments(value: object, column: str) -> tuple[Segments, dict[str, object]]:
    """The segments in a column, and by path what they hold beside label and text.

    Raises:
        BadRecord: it is something else, or has no text.
    """
    segments: list[Segment] = []
    left: dict[str, object] = {}
    for number, given in enumerate(listed(value, f"column {column}", _EXPECTED), start=1):
        where = f"segment {number} of {column}"
        if not isinstance(given, Mapping):
            raise BadRecord(f"{where} is {type_in_words(given)}, expected an object with label and text")
        label = as_flag(given.get("label"))
        if label is None:
            found = "no label" if is_empty(given.get("label")) else f"the label {str(given['label'])[:20]!r}"
            raise BadRecord(f"{where} has {found}, expected true (trained) or false")
        text = as_text(given.get("text"), where)
        left |= {f"{column}[].{key}": other for key, other in given.items() if key not in ("label", "text")}
        if text:
            segments.append(Segment(text, label))
    if not any(segment.text.strip() for segment in segments):
        raise BadRecord(f"column {column} is empty")
    return Segments(tuple(segments)), {path: other for path, other in left.items() if not is_empty(other)}
