"""Turns the tokens of a reply into text, up to a stop text, and counts them."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from workbench.engine.generation.decoding import TextStream

Reason = Literal["stop", "length"]


@dataclass
class Reply:
    """A reply, as far as it has been generated.

    Attributes:
        tokens: all tokens, with the one that ended the reply.
        text: the decoded text, without a stop text.
        reason: why it ended; None while it is being generated.
    """

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    reason: Reason | None = None


async def decode_reply(
    tokens: AsyncGenerator[list[int], None],
    decode: Callable[[Sequence[int]], str],
    ends: Sequence[int],
    stops: Sequence[str],
    reply: Reply,
) -> AsyncGenerator[str, None]:
    """Decode a reply's tokens as they come; yields text that can no longer change or become part of a stop text.

    Args:
        decode: decodes tokens without special ones.
        reply: is kept up to date.
    """
    stream, held = TextStream(decode), ""
    async for new in tokens:
        reply.tokens.extend(new)
        held += stream.add(new)
        kept, is_stopped = _before_stop(held, stops)
        if is_stopped:
            reply.text += kept
            reply.reason = "stop"
            if kept:
                yield kept
            return
        free = len(held) - _begun(held, stops)
        if free:
            reply.text += held[:free]
            yield held[:free]
            held = held[free:]
    held, is_stopped = _before_stop(held + stream.add([], final=True), stops)
    reply.text += held
    reply.reason = "stop" if is_stopped or (reply.tokens and reply.tokens[-1] in ends) else "length"
    if held:
        yield held


def _before_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may be the beginning of a stop text."""
    lengths = [
        count
        for stop in stops
        for count in range(1, min(len(stop), len(text) + 1))
        if stop.startswith(text[len(text) - count :])
    ]
    return max(lengths, default=0)
