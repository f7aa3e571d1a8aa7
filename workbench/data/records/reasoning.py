"""The reasoning of a response: in a key of its own, or before the answer between ``<think>`` and ``</think>``."""

import re
from dataclasses import replace

from workbench.data.records.conversation import Conversation

# Keys of a turn that records and templates have reasoning under. transformers gives a template all of them.
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_THINKING = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


def split_thinking(content: str) -> tuple[str, str]:
    """The reasoning that a response's text begins with, without its marks, and the answer."""
    match = _THINKING.match(content)
    return (match[1], content[match.end() :]) if match else ("", content)


def without_reasoning(conversation: Conversation) -> Conversation:
    """The same conversation, its responses without their reasoning."""
    messages = [
        {key: value for key, value in message.items() if key not in REASONING_KEYS}
        | ({"content": split_thinking(message["content"])[1]} if message["role"] == "assistant" else {})
        for message in conversation.messages
    ]
    return replace(conversation, messages=messages)
