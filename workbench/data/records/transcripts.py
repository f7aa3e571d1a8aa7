"""Reads a conversation that is stored as one text, with a mark such as ``Human:`` before each turn."""

import json
import re
from typing import Any

# Anthropic's HH-RLHF ("\n\nHuman: … \n\nAssistant: …"), OpenAssistant-Guanaco ("### Human: …### Assistant: …") and
# Glaive's function calling ("USER: …", "ASSISTANT: …", "FUNCTION RESPONSE: …").
_STYLES = (
    re.compile(r"(?:\A\s*|\n\s*\n)(Human|Assistant):"),
    re.compile(r"\s*### (Human|Assistant):"),
    re.compile(r"(?:\A\s*|\n\s*)(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):"),
)
_STARTS = ("human:", "assistant:", "### human:", "### assistant:", "system:", "user:", "assistant:")
_END = "<|endoftext|>"
# Glaive: <functioncall> {"name": "weather", "arguments": '{"city": "Oslo"}'}
_CALL = re.compile(r"(.*?)<functioncall>\s*(\{.*\})\s*", re.DOTALL)
_QUOTED_ARGUMENTS = re.compile(r"(\"arguments\"\s*:\s*)'(.*)'(\s*\}\s*)\Z", re.DOTALL)


def read_transcript(text: str) -> list[dict[str, Any]]:
    """The turns of a transcript, each with role and content; nothing if the text is none."""
    if not text[:200].lstrip().lower().startswith(_STARTS):
        return []
    for style in _STYLES:
        # What precedes the first mark, and then each mark and the text after it.
        before, *parts = style.split(text)
        turns = [_turn(mark, part) for mark, part in zip(parts[::2], parts[1::2], strict=True)]
        roles = {turn["role"] for turn in turns}
        if not before.strip() and "assistant" in roles and len(roles) > 1:
            # Some prompts end with the mark of the response that is still to come.
            return turns if turns[-1]["content"] or "tool_calls" in turns[-1] else turns[:-1]
    return []


def without_mark(text: str) -> str:
    """A system prompt without the mark that Glaive's column has before it."""
    return text.removeprefix("SYSTEM:").lstrip() if text.startswith("SYSTEM:") else text


def _turn(mark: str, text: str) -> dict[str, Any]:
    role = mark.lower().replace(" ", "_")
    content = text.strip().removesuffix(_END).rstrip()
    call = _CALL.fullmatch(content) if role == "assistant" else None
    if call is None:
        return {"role": role, "content": content}
    # Their arguments are JSON text between single quotes, which neither JSON nor Python reads.
    quoted = _QUOTED_ARGUMENTS.sub(lambda match: f"{match[1]}{json.dumps(match[2])}{match[3]}", call[2])
    return {"role": role, "content": call[1].strip(), "tool_calls": quoted}
