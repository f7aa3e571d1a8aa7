"""Ids of tool calls as nine letters or digits, the only ones that Mistral's templates accept."""

import hashlib
import re
from collections.abc import Sequence

from workbench.data.records.conversation import Message

_SHORT = re.compile(r"[A-Za-z0-9]{9}")


def with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """The same messages, each call and its result with one short id.

    A short id stays. Another one is derived from its text, a missing one from the place of the call: a conversation has
    the same ids in training and in chat. A result without an id belongs to the first call without a result.
    """
    written: list[Message] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        if "tool_calls" in message:
            calls = [
                {**call, "id": _short(call.get("id") or f"{place}.{number}")}
                for number, call in enumerate(message["tool_calls"])
            ]
            waiting = [call["id"] for call in calls]
            written.append({**message, "tool_calls": calls})
        elif message["role"] == "tool":
            given = message.get("tool_call_id")
            id_ = _short(given) if given else waiting[0] if waiting else _short(str(place))
            if id_ in waiting:
                waiting.remove(id_)
            written.append({**message, "tool_call_id": id_})
        else:
            written.append(message)
    return written


def _short(id_: object) -> str:
    text = str(id_)
    return text if _SHORT.fullmatch(text) else hashlib.blake2b(text.encode(), digest_size=8).hexdigest()[:9]
