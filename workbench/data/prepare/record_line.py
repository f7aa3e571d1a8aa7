"""A record as the JSON object that is written to files: ``messages`` with ``tools``, ``segments`` or ``text``."""

from typing import Any

from workbench.data.records.conversation import Conversation, Segments

# Keys that a question of an instruction record has in addition, for templates that write instruction and input apart.
_APART = ("instruction", "input")


def record_line(
    content: Conversation | Segments | str, system: str | None, *, keep_apart: bool = False
) -> dict[str, Any]:
    """``messages``, with ``weight`` 0 on untrained responses, and ``tools`` and ``chat_template_kwargs``; or else
    ``segments`` or ``text``.

    Args:
        system: the system prompt for a conversation without its own.
        keep_apart: keep ``instruction`` and ``input`` of a question beside its content.
    """
    if isinstance(content, str):
        return {"text": content}
    if isinstance(content, Segments):
        return {"segments": [{"label": segment.trained, "text": segment.text} for segment in content.segments]}
    messages: list[dict[str, Any]] = []
    for place, message in enumerate(content.messages):
        kept = message if keep_apart else {key: value for key, value in message.items() if key not in _APART}
        messages.append(kept | {"weight": 0} if place in content.untrained else kept)
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    beside = {"tools": content.tools, "chat_template_kwargs": content.template_kwargs}
    return {"messages": messages, **{name: value for name, value in beside.items() if value}}
