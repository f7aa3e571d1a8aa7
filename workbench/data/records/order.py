"""Puts the turns of a record in order: neighbours of one role are joined, and the last turn is a response."""

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.turns import Turn

JOINED = "Consecutive turns of one role are joined"
SHORTENED = "Turns after the last response are left out"


def in_order(turns: list[Turn]) -> Conversation:
    """Turns as a conversation: neighbours of one role joined, ended at the last response.

    Raises:
        BadRecord: there is no response, an empty one, or a system prompt in the middle.
    """
    joined = _joined(turns)
    changes = (JOINED,) if len(joined) < len(turns) else ()
    messages: list[Message] = []
    untrained: list[int] = []
    end = responses = 0  # the end is that of the last response
    for number, turn in enumerate(joined):
        message = turn.message
        role = message["role"]
        if role == "system" and number:
            raise BadRecord(f"turn {number + 1} is a system prompt; only the first turn may be one")
        if role == "assistant":
            if not message["content"].strip() and "tool_calls" not in message:
                raise BadRecord("a reply is empty")
            end, responses = number + 1, responses + 1
            if turn.untrained:
                untrained.append(number)
        messages.append(message)
    if not end:
        raise BadRecord("there is no assistant turn")
    if end < len(messages):
        changes, messages = (*changes, SHORTENED), messages[:end]
    if len(untrained) == responses:
        raise BadRecord("the record excludes each of its responses from training")
    return Conversation(messages, untrained=frozenset(untrained), changes=changes)


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
