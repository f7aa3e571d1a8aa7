"""Converts the turns of a conversation, however a record stores them, to a list of objects with a role and a text."""

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.data.records.conversation import BadRecord
from workbench.data.records.transcripts import read_transcript
from workbench.data.records.values import as_structure, is_blank, is_empty, type_in_words

ROLE_KEYS = ("role", "from")
TEXT_KEYS = ("content", "value", "text")
# Keys of an object that holds one exchange, a question and its response: XTuner, ms-swift, Capybara and others.
_EXCHANGE_KEYS = (
    ("input", "output"), ("human", "assistant"), ("user", "assistant"), ("prompt", "response"), ("question", "answer"),
    ("query", "response"), ("instruction", "output"),
)  # fmt: skip
_EXPECTED = "a list of turns"


def holds_messages(value: Mapping[str, object]) -> bool:
    """Whether an object holds turns under ``messages``, as the ``input`` of OpenAI's preference records does."""
    return bool(value.get("messages")) and _role_key(value) is None


def is_turns(value: object) -> bool:
    """Whether a value is, or stores as text, turns that have a role."""
    return turn_keys(value) is not None


def turn_keys(value: object) -> tuple[str, str] | None:
    """The keys of role and text in a value's first turn, such as ``("from", "value")``; None if it has no roles."""
    if isinstance(value, str) and not (_may_be_json(value) and any(key in value for key in ROLE_KEYS)):
        return None
    turns = _turns_if_any(value)
    if not turns or not isinstance(turns[0], Mapping):
        return None
    role = _role_key(turns[0])
    return (role, text_key(turns[0])) if role is not None else None


def layout_in_words(value: object) -> str | None:
    """How turns without roles are stored, to complete a sentence about the value: ``has texts in turn, …``.

    None if they are neither exchanges, nor alternating texts, nor a transcript.
    """
    if isinstance(value, str) and read_transcript(value):
        return "is a transcript with a mark before each turn"
    turns = _turns_if_any(value)
    if turns and isinstance(turns[0], Mapping) and (keys := _exchange_keys(turns[0])):
        return f"has pairs of {keys[0]} and {keys[1]}"
    if _are_texts(turns):
        return "has texts in turn, the first one the user's"
    return None


def as_turns(value: object, where: str) -> list[Any]:
    """A list of turns from any layout: a list, its JSON text, an object of lists (``{"role": […], "content": […]}``),
    one turn, exchanges (``{"question": …, "answer": …}``), alternating texts of which the first is the user's, or a
    transcript.

    Raises:
        BadRecord: it is none of these, or has no turns.
    """
    if isinstance(value, str) and (transcript := read_transcript(value)):
        return transcript
    turns = listed(value, where)
    if _are_texts(turns):
        roles = ("user", "assistant")
        return [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    if isinstance(turns[0], Mapping) and (keys := _exchange_keys(turns[0])):
        return [turn for exchange in turns for turn in _turns_of_exchange(exchange, keys)]
    return turns


def text_key(turn: Mapping[str, object]) -> str:
    """The key of a turn's text: the first that is filled, else the first there is."""
    there = [key for key in TEXT_KEYS if key in turn]
    return next((key for key in there if not is_empty(turn[key])), there[0] if there else "")


def listed(value: object, where: str, expected: str = _EXPECTED) -> list[Any]:
    """A list of objects from a list, its JSON text, an object of lists, or one object that has a role.

    Raises:
        BadRecord: it is none of these, or empty.
    """
    value = as_structure(value, where, expected)
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, dict):
        value = value["messages"] if holds_messages(value) else value
    if isinstance(value, dict):
        lists = [member for member in value.values() if isinstance(member, list | tuple)]
        if len(lists) == len(value) and lists and len({len(member) for member in lists}) == 1:
            value = [dict(zip(value, members, strict=True)) for members in zip(*lists, strict=True)]
        elif _role_key(value) is not None:
            value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise BadRecord(f"{where} is {'empty' if is_empty(value) else type_in_words(value)}, expected {expected}")
    if all(isinstance(turn, str) and turn.lstrip()[:1] == "{" for turn in value):
        return [as_structure(turn, f"turn {number} of {where}", "an object") for number, turn in enumerate(value, 1)]
    return list(value)


def _turns_if_any(value: object) -> list[Any]:
    """The turns as a list; empty if the value holds none."""
    if isinstance(value, str) and not _may_be_json(value):
        return []
    try:
        return listed(value, "")
    except BadRecord:
        return []


def _may_be_json(text: str) -> bool:
    """Whether a text may be a list or an object as JSON, or such a text as a JSON string."""
    start = text.lstrip()
    return start.startswith(("[", "{")) or (start.startswith('"') and start[1:].lstrip()[:1] in ("[", "{"))


def _are_texts(turns: list[Any]) -> bool:
    """Whether turns are plain texts, which user and assistant wrote alternately."""
    return len(turns) > 1 and isinstance(turns[0], str) and all(isinstance(turn, str) for turn in turns)


def _role_key(turn: Mapping[str, object]) -> str | None:
    return next((key for key in ROLE_KEYS if key in turn), None)


def _exchange_keys(turn: Mapping[str, object]) -> tuple[str, str] | None:
    if _role_key(turn) is not None:
        return None
    return next((keys for keys in _EXCHANGE_KEYS if keys[0] in turn and keys[1] in turn), None)


def _turns_of_exchange(exchange: object, keys: Sequence[str]) -> list[object]:
    """The turns of one exchange; its other keys stay with the response."""
    if not isinstance(exchange, Mapping):
        return [exchange]
    question, answer = keys
    turns: list[object] = []
    for role, key in (("system", "system"), ("user", question)):
        if not is_blank(exchange.get(key)):
            turns.append({"role": role, "content": exchange[key]})
    rest = {key: member for key, member in exchange.items() if key not in ("system", question, answer)}
    if not is_blank(exchange.get(answer)):
        turns.append({**rest, "role": "assistant", "content": exchange[answer]})
    return turns
