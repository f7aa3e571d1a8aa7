"""Reads the turns of a conversation, in any of the spellings that records have them in."""

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.data.records.conversation import BadRecord, Message
from workbench.data.records.layouts import ROLE_KEYS, as_turns, is_turns, text_key
from workbench.data.records.tool_calls import read_calls
from workbench.data.records.values import as_structure, as_text, is_blank, is_empty, type_in_words

ROLES = {
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
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "environment": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
_CALL_ROLES = ("function_call", "tool_call")
# Whether a response is trained: OpenAI, ms-swift, Axolotl and others.
LOSS_KEYS = ("weight", "loss", "train", "training", "trainable")
_FLAGS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: its message, and whether the record excludes it from the loss."""

    message: Message
    untrained: bool = False


def read_turns(value: object, column: str) -> list[Turn]:
    """The turns in a column.

    Raises:
        BadRecord: a turn has no role, an unknown one, or content that is not text.
    """
    turns = as_turns(value, f"column {column}")
    return [_turn(turn, f"turn {number} of {column}") for number, turn in enumerate(turns, start=1)]


def read_history(value: object, column: str) -> list[Turn]:
    """Earlier turns as pairs of a question and its response, as Alpaca's ``history`` column has them.

    Raises:
        BadRecord: it is something else.
    """
    if is_blank(value):
        return []
    where = f"column {column}"
    pairs = as_structure(value, where, "pairs of question and response")
    if is_turns(pairs):
        return read_turns(pairs, column)
    turns = []
    for number, pair in enumerate(pairs if isinstance(pairs, list) else [None], start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadRecord(f"{where} is not a list of pairs of question and response")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append(Turn({"role": role, "content": as_text(text, f"pair {number} of {where}")}))
    return turns


def _turn(turn: object, where: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise BadRecord(f"{where} is {type_in_words(turn)}, expected an object with role and content")
    role_key = next((key for key in ROLE_KEYS if turn.get(key)), None)
    given = turn[role_key] if role_key is not None else None
    if not isinstance(given, str):
        raise BadRecord(f"{where} has no role")
    name = given.strip().lower().replace("-", "_")
    role = ROLES.get(name)
    if role is None:
        raise BadRecord(f"{where} has the unknown role {given[:40]!r}")
    text_in = text_key(turn)
    # Every other key travels with the message, and the template says whether it has a use for it.
    rest = {str(key): value for key, value in turn.items() if key not in (role_key, text_in) and not is_empty(value)}
    message: Message = {"role": role, "content": ""}
    calls = rest.pop("tool_calls", None) or rest.pop("function_call", None)
    content = turn.get(text_in)
    if name in _CALL_ROLES:
        calls, content = content, None
    if calls is not None:
        message["tool_calls"] = read_calls(calls, f"the tool call of {where}")
    if content is not None or calls is None:
        message["content"] = _content(content, where, structured=role == "tool")
    untrained = _pop_untrained(rest, role, where)
    return Turn({**message, **rest}, untrained)


def _pop_untrained(rest: dict[str, object], role: str, where: str) -> bool:
    """Take the keys that say whether a response is trained out of a turn's other keys."""
    untrained = False
    for key in LOSS_KEYS:
        if key not in rest:
            continue
        flag = _FLAGS.get(str(rest[key]).strip().lower().removesuffix(".0"))
        if flag is None:
            raise BadRecord(f"{where} has {key} {str(rest[key])[:20]!r}, expected 0 or 1")
        # A prompt is masked anyway; one that asks to be trained keeps its key, and is named as unused.
        if role == "assistant" or not flag:
            del rest[key]
            untrained = untrained or not flag
    return untrained


def _content(value: object, where: str, structured: bool) -> str:
    """A turn's text; a list of text parts is joined, and a tool's result may be any JSON value.

    Raises:
        BadRecord: the content is missing or not text; an image or the like is named.
    """
    if isinstance(value, list) and value and all(isinstance(part, dict) and "type" in part for part in value):
        for part in value:
            if not isinstance(part.get("text"), str):
                raise BadRecord(f"{where} has a part of type {str(part['type'])[:40]!r}, expected text")
        return "".join(part["text"] for part in value)
    if isinstance(value, list) and value and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
        return "".join(part["text"] for part in value)
    if structured and isinstance(value, dict | list | bool):
        import json

        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        raise BadRecord(f"{where} has parts that are not text")
    if value is None:
        raise BadRecord(f"{where} has no text")
    return as_text(value, where)
