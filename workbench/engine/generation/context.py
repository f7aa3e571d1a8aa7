"""What of a conversation is given to the model: all of it, or as many of its newest whole turns as fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message
from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Prompt:
    """What the model is to continue.

    ``limit`` is the number of tokens that its context holds, None where its configuration names none; ``left_out`` the
    number of questions that were left out, the oldest first, each with its reply.
    """

    ids: list[int]
    limit: int | None
    left_out: int

    def room(self, wanted: int) -> int:
        """Tokens that the reply may have."""
        return wanted if self.limit is None else min(wanted, self.limit - len(self.ids))


def context_of(config: Any) -> int | None:
    """Tokens that a model's context holds, as its configuration has it."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def fit_prompt(template: Template, messages: Sequence[Message], limit: int | None, reply: int) -> Prompt:
    """The prompt of a conversation, without its oldest turns where it would leave too little room for the reply.

    Too little is less than ``reply`` tokens, or than a quarter of the context where that is fewer. System prompt and
    last question always stay.

    Raises:
        WorkbenchError: these alone do not fit, or the template refuses the conversation.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    turns = _turns(messages[len(system) :])
    reserved = 1 if limit is None else min(reply, max(limit // 4, 1))
    for left_out in range(len(turns)):
        kept = [*system, *(message for turn in turns[left_out:] for message in turn)]
        ids = template.encode_prompt([message.model_dump() for message in kept])
        is_last = left_out == len(turns) - 1
        if limit is None or len(ids) + (1 if is_last else reserved) <= limit:
            return Prompt(ids, limit, left_out)
    raise WorkbenchError(
        f"The prompt is {len(ids)} tokens long; the model's context is {limit} tokens.",
        "Shorten the question or the system prompt.",
        kind="context_full",
    )


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Each question with what follows it, up to the next one; what stands before the first is a turn too."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns or [[]]
