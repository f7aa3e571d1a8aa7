"""Values of a record: whether a field is filled, its text, and lists that a file stores as text."""

import ast
import json
import math
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

from workbench.data.records.conversation import BadRecord


def is_empty(value: object) -> bool:
    """Whether a field holds nothing: null, NaN, an empty text, list or object."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str | list | tuple | dict) and not value


def is_blank(value: object) -> bool:
    """Whether a field holds nothing, or only white space."""
    return is_empty(value) or (isinstance(value, str) and not value.strip())


def as_text(value: object, where: str) -> str:
    """Text from a value: strings as they are, numbers written out, dates in ISO form.

    Raises:
        BadRecord: the value is none of these, or holds half a surrogate pair, which is no text.
    """
    if not isinstance(value, str):
        return _written_out(value, where)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRecord(f"{where} is not valid UTF-8") from None
    return value


def _written_out(value: object, where: str) -> str:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise BadRecord(f"{where} is {value}, expected text")
        return str(value)
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    raise BadRecord(f"{where} is {type_in_words(value)}, expected text")


# How records write whether something is trained or good. The numbers 1 and 0 are written out.
_FLAGS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def as_flag(value: object) -> bool | None:
    """A truth value, also as a number or as text; None if the value is none."""
    return _FLAGS.get(str(value).strip().lower().removesuffix(".0"))


def as_structure(value: object, where: str, expected: str) -> Any:
    """A list or object, parsed where the file stores it as text: JSON, or Python's notation, which pandas writes.

    Args:
        expected: what should be there, for the message.

    Raises:
        BadRecord: the text is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
        # Some are encoded twice: JSON text inside a JSON string.
        return json.loads(parsed) if isinstance(parsed, str) else parsed
    except (ValueError, RecursionError):
        pass
    try:
        # Literals only: nothing is executed.
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise BadRecord(f"{where} is text that is not JSON, expected {expected}") from None


# The member of an object that holds its text: SQuAD's answers, PubMedQA's context.
_TEXT_MEMBERS = ("text", "contexts", "context", "content", "passages", "value")


def text_of_members(value: object, several: bool) -> tuple[object, dict[str, object]]:
    """The text of an object or a list of texts, and the object's other members that are filled.

    Args:
        several: join texts that differ; else a list is one text only where all of it is the same.
    """
    others: dict[str, object] = {}
    if isinstance(value, dict) and (key := next((key for key in _TEXT_MEMBERS if key in value), None)) is not None:
        others = {str(name): member for name, member in value.items() if name != key and not is_empty(member)}
        value = value[key]
    if isinstance(value, list) and len(set(map(str, value))) == 1:
        value = value[0]
    elif several and isinstance(value, list) and all(isinstance(text, str) for text in value):
        value = "\n\n".join(value)
    return value, others


def without_nulls(value: object) -> Any:
    """Lists and objects without null members: Parquet fills in every key that any other record has."""
    if isinstance(value, dict):
        return {key: without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(member) for member in value]
    return value


def type_in_words(value: object) -> str:
    """The type of a JSON value for a message."""
    names = {
        bool: "a boolean", dict: "an object", list: "a list", type(None): "nothing", bytes: "bytes", str: "text",
        int: "a number", float: "a number",
    }  # fmt: skip
    return names.get(type(value), f"a {type(value).__name__}")


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """The number of items, or characters, that both begin with."""
    both = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in both if one != other), min(len(first), len(second)))
