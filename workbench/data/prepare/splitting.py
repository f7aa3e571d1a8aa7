"""Splits records over the length: text at paragraphs and words with an overlap, conversations between turns."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from workbench.data.records.conversation import Conversation, Message

_PARAGRAPHS = re.compile(r"(?<=\n\n)(?=[^\n])")
_WORDS = re.compile(r"\S+\s*|\s+")


def split_text(text: str, tokens: Callable[[str], int], limit: int, overlap: int) -> Iterator[str]:
    """Yield chunks that cover a text in order, each of at most ``limit`` tokens, at paragraph ends where possible.

    Args:
        tokens: counts the tokens of a text.
        overlap: tokens of a chunk's end to repeat at the start of the next one, at most; in whole paragraphs or words.
    """
    units = [unit for paragraph in _PARAGRAPHS.split(text) for unit in _units(paragraph, tokens, max(limit // 4, 1))]
    sizes = [max(tokens(unit), 1) for unit in units]
    start = new = 0
    while new < len(units):
        end, size = start, 0
        while end < len(units) and (end <= new or size + sizes[end] <= limit):
            size += sizes[end]
            end += 1
        # Tokens at the seams are only in the count of the whole.
        while end > new + 1 and tokens("".join(units[start:end])) > limit:
            end -= 1
        while start < new and tokens("".join(units[start:end])) > limit:
            start += 1
        if (chunk := "".join(units[start:end])).strip():
            yield chunk
        new, start, repeated = end, end, 0
        while start > 0 and repeated + sizes[start - 1] <= overlap:
            start -= 1
            repeated += sizes[start]


def _units(paragraph: str, tokens: Callable[[str], int], limit: int) -> Iterator[str]:
    """A paragraph; one that is too long to be taken whole as lines, words, or characters."""
    if tokens(paragraph) <= limit:
        yield paragraph
        return
    for line in paragraph.splitlines(keepends=True):
        if tokens(line) <= limit:
            yield line
            continue
        for word in _WORDS.findall(line):
            if tokens(word) <= limit:
                yield word
            else:
                yield from (word[at : at + limit] for at in range(0, len(word), limit))


def split_conversation(
    conversation: Conversation, fits: Callable[[Conversation], bool]
) -> tuple[list[Conversation], int]:
    """Consecutive parts of a conversation that fit, each with its system prompt and tools.

    A part ends before a question, or a system prompt before one. Left out, and counted as the second value, are
    questions whose response does not fit even alone, and those of parts without a response that is trained.
    """
    messages = conversation.messages
    head = 1 if messages[0]["role"] == "system" else 0
    starts = [n for n in range(head, len(messages)) if n == head or _opens(messages[n - 1], messages[n])]
    exchanges = [range(start, end) for start, end in zip(starts, [*starts[1:], len(messages)], strict=True)]
    parts: list[Conversation] = []
    at = left_out = 0
    while at < len(exchanges):
        fitting = None
        end = at + 1
        while end <= len(exchanges):
            part = _part(conversation, head, range(exchanges[at].start, exchanges[end - 1].stop))
            if not fits(part):
                break
            fitting = part
            end += 1
        if fitting is not None and set(fitting.responses) - fitting.untrained:
            parts.append(fitting)
        else:
            left_out += max(end - 1, at + 1) - at
        at = max(end - 1, at + 1)
    return parts, left_out


def _opens(before: Message, message: Message) -> bool:
    """Whether a message begins an exchange. A later system prompt belongs to the question after it."""
    role = message["role"]
    return bool(role == "system" or (role == "user" and before["role"] != "system"))


def _part(conversation: Conversation, head: int, places: Sequence[int]) -> Conversation:
    kept = [*range(head), *places]
    untrained = frozenset(new for new, old in enumerate(kept) if old in conversation.untrained)
    return replace(conversation, messages=[conversation.messages[place] for place in kept], untrained=untrained)
