"""Reads the turns of a conversation, in any of the spellings that records have them in."""

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.data.records.conversation import BadRecord, Message
from workbench.data.records.layouts import ROLE_KEYS, as_turns, is_turns, layout_in_words, text_key
from workbench.data.records.parts import Left, read_content
from workbench.data.records.reasoning import REASONING_KEYS, split_thinking
from workbench.data.records.tool_calls import read_calls
from workbench.data.records.values import as_flag, as_structure, as_text, is_blank, is_empty, type_in_words

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
    "ai": "assistant",
    "chatbot": "assistant",
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
_KNOWN_ROLES = "system, user, assistant, tool"
_CALL_ROLES = ("function_call", "tool_call")
# Whether a response is trained: OpenAI, ms-swift, Axolotl and others.
LOSS_KEYS = ("weight", "loss", "train", "training", "trainable", "loss_mask")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: its message, and whether the record excludes it from the loss.

    ``left``: what it holds beside its message, as pairs of a path and a value.
    """

    message: Message
    untrained: bool = False
    left: Left = ()


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
    if is_turns(pairs) or layout_in_words(pairs):
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
    role_key = next((key for key in ROLE_KEYS if not is_empty(turn.get(key))), None)
    given = turn[role_key] if role_key is not None else None
    if role_key is None:
        raise BadRecord(f"{where} has no role")
    if not isinstance(given, str):
        raise BadRecord(f"{where} has {type_in_words(given)} as its role, expected {_KNOWN_ROLES} or the like")
    name = given.strip().lower().replace("-", "_")
    role = ROLES.get(name)
    if role is None:
        raise BadRecord(f"{where} has the unknown role {given[:40]!r}, expected {_KNOWN_ROLES} or the like")
    text_in = text_key(turn)
    # Every other key travels with the message, and the template says whether it has a use for it.
    rest = {str(key): value for key, value in turn.items() if key not in (role_key, text_in) and not is_empty(value)}
    message: Message = {"role": role, "content": ""}
    calls = rest.pop("tool_calls", None) or rest.pop("function_call", None)
    content = turn.get(text_in)
    left: Left = ()
    reasoning = ""
    if name in _CALL_ROLES and not is_empty(content):
        # LLaMA-Factory has the reasoning of a call before it.
        left = (("tool_calls", calls),) if calls else ()
        reasoning, calls = split_thinking(content) if isinstance(content, str) else ("", content)
    elif isinstance(content, str) and (content or calls is None):
        message["content"] = as_text(content, where)
    elif not text_in and calls is None and role != "tool":
        raise BadRecord(f"{where} has no text; its keys are {', '.join(map(str, turn))}"[:200])
    elif calls is None or not is_empty(content):
        read = read_content(content, where, role)
        message["content"], reasoning, left = read.text, read.reasoning, read.left
    if calls is not None:
        message["tool_calls"] = read_calls(calls, f"the tool call of {where}")
    if reasoning:
        if any(key in rest for key in REASONING_KEYS):
            left = (*left, ("content[].thinking", reasoning))
        else:
            message["reasoning_content"] = reasoning
    untrained = _pop_untrained(rest, role, where)
    return Turn({**message, **rest}, untrained, left and tuple((f"messages[].{path}", value) for path, value in left))


def _pop_untrained(rest: dict[str, object], role: str, where: str) -> bool:
    """Take the keys that say whether a response is trained out of a turn's other keys."""
    untrained = False
    for key in LOSS_KEYS:
        if key not in rest:
            continue
        flag = as_flag(rest[key])
        if flag is None:
            raise BadRecord(
                f"{where} has {key} {str(rest[key])[:20]!r}: a response is trained (1) or not (0), and not in part"
            )
        # A prompt is masked anyway; one that asks to be trained keeps its key, and is named as unused.
        if role == "assistant" or not flag:
            del rest[key]
            untrained = untrained or not flag
    return untrained
