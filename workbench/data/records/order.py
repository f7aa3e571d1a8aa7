"""Puts the turns of a record in order: neighbours of one role are joined, and the last turn is a response."""

from workbench.data.records.conversation import BadRecord, Conversation
from workbench.data.records.turns import Turn

JOINED = "Consecutive turns of one role are joined"
SHORTENED = "Turns after the last response are left out"


def in_order(turns: list[Turn]) -> Conversation:
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
    return Conversation([turn.message for turn in joined], untrained=untrained, changes=tuple(changes))


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
