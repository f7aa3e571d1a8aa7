"""Splits records that are longer than a limit: text into chunks with an overlap, conversations between exchanges."""

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
    # A chunk is units[start:end]; those before `new` repeat the end of the previous chunk.
    start = new = 0
    while new < len(units):
        end = _end_that_fits(sizes, start, new, limit)
        # Tokens that span two units are missing in the sum of their sizes, so the whole chunk is counted too.
        while end > new + 1 and tokens("".join(units[start:end])) > limit:
            end -= 1
        while start < new and tokens("".join(units[start:end])) > limit:
            start += 1
        if (chunk := "".join(units[start:end])).strip():
            yield chunk
        start, new = _start_of_overlap(sizes, end, overlap), end


def _units(paragraph: str, tokens: Callable[[str], int], limit: int) -> Iterator[str]:
    """The paragraph if it has at most ``limit`` tokens; else its lines, and of longer lines words or characters."""
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


def _end_that_fits(sizes: Sequence[int], start: int, new: int, limit: int) -> int:
    """The end of the units from ``start`` on that fit by the sum of their sizes; ``new`` is always among them."""
    end = new + 1
    size = sum(sizes[start:end])
    while end < len(sizes) and size + sizes[end] <= limit:
        size += sizes[end]
        end += 1
    return end


def _start_of_overlap(sizes: Sequence[int], end: int, overlap: int) -> int:
    """The start of the units before ``end`` that have at most ``overlap`` tokens."""
    start, size = end, 0
    while start > 0 and size + sizes[start - 1] <= overlap:
        start -= 1
        size += sizes[start]
    return start


def split_conversation(
    conversation: Conversation, fits: Callable[[Conversation], bool]
) -> tuple[list[Conversation], int]:
    """Split a conversation into consecutive parts that fit, each with its system prompt and tools.

    A part consists of whole exchanges: a question, with a system prompt directly before it if there is one, and all
    that follows up to the next exchange.

    Returns:
        The parts, and the number of exchanges that are left out: those that do not fit even alone, and those of parts
        without a response that is trained.
    """
    messages = conversation.messages
    head = 1 if messages[0]["role"] == "system" else 0
    starts = [n for n in range(head, len(messages)) if n == head or _opens(messages[n - 1], messages[n])]
    exchanges = [range(start, end) for start, end in zip(starts, [*starts[1:], len(messages)], strict=True)]
    parts: list[Conversation] = []
    left_out = 0
    while exchanges:
        part, count = _longest_part(conversation, head, exchanges, fits)
        if part is not None and set(part.responses) - part.untrained:
            parts.append(part)
        else:
            left_out += count
        exchanges = exchanges[count:]
    return parts, left_out


def _opens(before: Message, message: Message) -> bool:
    """Whether a message begins an exchange. A later system prompt belongs to the question after it."""
    role = message["role"]
    return bool(role == "system" or (role == "user" and before["role"] != "system"))


def _longest_part(
    conversation: Conversation, head: int, exchanges: Sequence[range], fits: Callable[[Conversation], bool]
) -> tuple[Conversation | None, int]:
    """The longest part that fits and begins with the first exchange, and its exchanges; ``(None, 1)`` if none fits."""
    longest, count = None, 0
    for exchange in exchanges:
        part = _part(conversation, head, range(exchanges[0].start, exchange.stop))
        if not fits(part):
            break
        longest, count = part, count + 1
    return longest, max(count, 1)


def _part(conversation: Conversation, head: int, places: Sequence[int]) -> Conversation:
    """The first ``head`` messages of a conversation and those at ``places``."""
    kept = [*range(head), *places]
    untrained = frozenset(new for new, old in enumerate(kept) if old in conversation.untrained)
    return replace(conversation, messages=[conversation.messages[place] for place in kept], untrained=untrained)
