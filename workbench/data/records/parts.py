"""Reads the content of a turn: text, or a list of parts, of which those of text and of reasoning are used."""

import json
from dataclasses import dataclass
from typing import Any

from workbench.data.records.conversation import BadRecord
from workbench.data.records.media import is_media_part, media_problem
from workbench.data.records.values import as_text, is_empty, type_in_words

# Types of parts that hold reasoning, each under a key of the same name: Anthropic's and Mistral's.
_REASONING = ("thinking", "reasoning")

Left = tuple[tuple[str, object], ...]
"""What a content holds beside its text and reasoning: pairs of a path and a value."""


@dataclass(frozen=True, slots=True)
class TurnContent:
    """The text and the reasoning in a turn's content, and what its parts hold beside these."""

    text: str
    reasoning: str = ""
    left: Left = ()


def read_content(value: object, where: str, role: str) -> TurnContent:
    """A turn's content: parts of text are joined, texts of a list with empty lines between them.

    A tool's result may be any JSON value.

    Raises:
        BadRecord: it is missing, or not text; an image or the like is named.
    """
    if isinstance(value, str):
        return TurnContent(as_text(value, where))
    # A result of a tool may be an empty list; an empty cell of a table is NaN.
    if is_empty(value) and (role != "tool" or not isinstance(value, list | dict)):
        value = None
    if value is None and role == "tool":
        return TurnContent("")  # a function that returns nothing
    if value is None:
        raise BadRecord(f"{where} has no text")
    if isinstance(value, list) and all(isinstance(text, str) for text in value) and role != "tool":
        return TurnContent("\n\n".join(as_text(text, where) for text in value))
    parts = [value] if isinstance(value, dict) and role != "tool" and {"type", "text"} & value.keys() else value
    # A tool may return any object that has an image.
    if (
        isinstance(parts, list)
        and parts
        and all(_is_part(part) or (role != "tool" and is_media_part(part)) for part in parts)
    ):
        return _joined([part if isinstance(part, dict) else {"text": part} for part in parts], where, role)
    if role == "tool" and isinstance(value, dict | list | bool):
        return TurnContent(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        raise BadRecord(f"{where} has parts that are not text")
    return TurnContent(as_text(value, where))


def _is_part(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and ("type" in part or isinstance(part.get("text"), str)))


def _joined(parts: list[dict[str, Any]], where: str, role: str) -> TurnContent:
    texts: list[str] = []
    reasoning: list[str] = []
    left: dict[str, object] = {}  # by path: equal keys of several parts are one field
    for part in parts:
        kind = part.get("type")
        if kind in _REASONING and role == "assistant" and not is_empty(part.get(kind)):
            used = str(kind)
            reasoning.append(_reasoning(part[kind], where))
        elif isinstance(part.get("text"), str):
            used = "text"
            texts.append(as_text(part["text"], where))
        elif problem := media_problem(part):
            raise BadRecord(problem)
        else:
            raise BadRecord(f"{where} has a part of type {str(kind)[:40]!r}, expected text")
        left |= {f"content[].{key}": other for key, other in part.items() if key not in ("type", used)}
    filled = tuple((path, other) for path, other in left.items() if not is_empty(other))
    return TurnContent("".join(texts), "\n\n".join(reasoning), filled)


def _reasoning(value: object, where: str) -> str:
    """The text of a part of reasoning: text, or a list of parts of text."""
    if isinstance(value, str):
        return as_text(value, where)
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        return "".join(as_text(part["text"], where) for part in value)
    raise BadRecord(f"{where} has reasoning that is {type_in_words(value)}, expected text")
