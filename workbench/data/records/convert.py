"""Turns one record into a conversation or plain text, and names the fields that this leaves unused."""

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.formats import RecordFormat
from workbench.data.records.tool_calls import read_tools
from workbench.data.records.turns import Turn, is_turns, read_history, read_turns
from workbench.data.records.unused import Unused, unused_columns
from workbench.data.records.values import as_text, is_empty

JOINED = "Consecutive turns of one role are joined"
SHORTENED = "Turns after the last response are left out"


@dataclass(frozen=True, slots=True)
class Converted:
    """A record as it can be fed, and the columns of it that are not."""

    content: Conversation | str
    unused: tuple[Unused, ...] = ()


def convert(record: Mapping[str, object], form: RecordFormat) -> Converted:
    """A record as a conversation that holds at least one response, or as plain text.

    Raises:
        BadRecord: with the reason, naming the column or turn at fault.
    """
    content = _text(record, form.columns["text"], needed=True) if form.kind == "text" else _conversation(record, form)
    return Converted(content, unused_columns(record, form.used, content))


def _conversation(record: Mapping[str, object], form: RecordFormat) -> Conversation:
    columns = form.columns
    if form.kind in ("messages", "sharegpt"):
        turns = read_turns(record.get(columns["messages"]), columns["messages"])
    else:
        turns = _prompt(record, form) + _reply(record, columns["reply"])
    system = _text(record, columns["system"]) if "system" in columns else ""
    if system.strip() and turns[0].message["role"] != "system":
        turns.insert(0, Turn({"role": "system", "content": system}))
    tools = read_tools(record.get(columns["tools"]), f"column {columns['tools']}") if "tools" in columns else []
    return _in_order(turns, tools)


def _prompt(record: Mapping[str, object], form: RecordFormat) -> list[Turn]:
    columns = form.columns
    turns = read_history(record.get(columns["history"]), columns["history"]) if "history" in columns else []
    prompt = record.get(columns["prompt"])
    extra = _text(record, columns["input"]) if "input" in columns else ""
    if is_turns(prompt):
        asked = [Turn(turn.message, untrained=True) for turn in read_turns(prompt, columns["prompt"])]
        if extra.strip():
            asked[-1].message["content"] += f"\n\n{extra}"
        # A system prompt comes first.
        return asked[:1] + turns + asked[1:] if asked[0].message["role"] == "system" else turns + asked
    text = _text(record, columns["prompt"], needed=True)
    message: Message = {"role": "user", "content": text}
    if extra.strip():
        message = {"role": "user", "content": f"{text}\n\n{extra}", "instruction": text, "input": extra}
    return [*turns, Turn(message)]


def _reply(record: Mapping[str, object], column: str) -> list[Turn]:
    value = record.get(column)
    if is_turns(value):
        return read_turns(value, column)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]  # SQuAD's answers
    if isinstance(value, list) and len(set(map(str, value))) == 1:
        value = value[0]
    reply = _text({**record, column: value} if column in record else record, column, needed=True)
    return [Turn({"role": "assistant", "content": reply})]


def _text(record: Mapping[str, object], column: str, needed: bool = False) -> str:
    value = record.get(column)
    text = "" if is_empty(value) else as_text(value, f"column {column}")
    if needed and not text.strip():
        raise BadRecord(f"column {column} is {'missing' if column not in record else 'empty'}")
    return text


def _in_order(turns: list[Turn], tools: list[dict[str, object]]) -> Conversation:
    """Turns as a conversation: neighbours of one role joined, ended at the last response.

    Raises:
        BadRecord: there is no response, an empty one, or a system prompt in the middle.
    """
    joined = _joined(turns)
    changes = [JOINED] if len(joined) < len(turns) else []
    for number, turn in enumerate(joined[1:], start=2):
        if turn.message["role"] == "system":
            raise BadRecord(f"turn {number} is a system prompt; only the first turn may be one")
    last = max((n for n, turn in enumerate(joined) if turn.message["role"] == "assistant"), default=-1)
    if last < 0:
        raise BadRecord("there is no assistant turn")
    changes += [SHORTENED] if last + 1 < len(joined) else []
    joined = joined[: last + 1]
    for message in (turn.message for turn in joined):
        if message["role"] == "assistant" and not message["content"].strip() and "tool_calls" not in message:
            raise BadRecord("a reply is empty")
    untrained = frozenset(n for n, turn in enumerate(joined) if turn.untrained and turn.message["role"] == "assistant")
    if untrained and len(untrained) == sum(turn.message["role"] == "assistant" for turn in joined):
        raise BadRecord("the record excludes each of its responses from training")
    return Conversation([turn.message for turn in joined], tools, untrained, tuple(changes))


def _joined(turns: list[Turn]) -> list[Turn]:
    """Neighbours of one role as one turn. Calls and results of tools stay apart: several belong to one response."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is not None and _can_join(before, turn):
            text = f"{before.message['content']}\n\n{turn.message['content']}"
            joined[-1] = Turn({**before.message, "content": text}, before.untrained)
        else:
            joined.append(turn)
    return joined


def _can_join(before: Turn, turn: Turn) -> bool:
    role = turn.message["role"]
    same = role == before.message["role"] and role != "tool" and before.untrained == turn.untrained
    return same and "tool_calls" not in before.message and turn.message.keys() <= {"role", "content"}
