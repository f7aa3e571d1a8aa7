"""Puts the turns of a record in order: neighbors of one role are joined, and the last turn is a response."""

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.records.turns import Turn

JOINED = "Consecutive turns of one role are joined"
SHORTENED = "Turns after the last response are left out"


def in_order(turns: list[Turn]) -> Conversation:
    """Turns as a conversation: neighbors of one role joined, ended at the last response that is not empty.

    Raises:
        BadRecord: there is no response, or an empty one before the last.
    """
    joined = _joined(turns)
    changes = (JOINED,) if len(joined) < len(turns) else ()
    untrained: list[int] = []
    end = responses = 0  # the end is that of the last response
    has_empty = False
    for number, turn in enumerate(joined):
        if turn.message["role"] != "assistant":
            continue
        # One that is not trained is only a part of the prompt.
        if not turn.untrained and not turn.message["content"].strip() and "tool_calls" not in turn.message:
            has_empty = True
            continue
        if has_empty:
            raise BadRecord("a reply is empty")
        end, responses = number + 1, responses + 1
        if turn.untrained:
            untrained.append(number)
    if not end:
        raise BadRecord("a reply is empty" if has_empty else "there is no assistant turn")
    if end < len(joined):
        changes = (*changes, SHORTENED)
    if len(untrained) == responses:
        raise BadRecord("the record excludes each of its responses from training")
    messages: list[Message] = [turn.message for turn in joined[:end]]
    return Conversation(messages, untrained=frozenset(untrained), changes=changes)


def _joined(turns: list[Turn]) -> list[Turn]:
    """Neighbors of one role as one turn. Calls and results of tools stay apart: several belong to one response."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is not None and _can_join(before, turn):
            texts = [text for text in (before.message["content"], turn.message["content"]) if text.strip()]
            if turn.message["role"] == "system":
                texts = list(dict.fromkeys(texts))  # one that is there twice
            joined[-1] = Turn({**before.message, "content": "\n\n".join(texts)}, before.untrained)
        else:
            joined.append(turn)
    return joined


def _can_join(before: Turn, turn: Turn) -> bool:
    role = turn.message["role"]
    same = role == before.message["role"] and role != "tool" and before.untrained == turn.untrained
    return same and "tool_calls" not in before.message and turn.message.keys() <= {"role", "content"}
