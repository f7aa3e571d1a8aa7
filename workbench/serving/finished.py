"""What a server tells about each request that is over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """A request that is over, as the server's terminal shows it. It holds no text of a prompt or a reply.

    Attributes:
        reason: ``stop``, ``length``, ``tool_calls``; ``canceled`` if the client went away; else an error's kind.
        running: how many requests are still being answered.
    """

    model: str
    prompt_tokens: int
    tokens: int
    seconds: float
    reason: str
    running: int
