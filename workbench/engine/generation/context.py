"""Makes a prompt from a conversation; leaves out the oldest turns if it does not fit into the model's context."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Prompt:
    """The tokens that the model continues.

    Attributes:
        limit: tokens that the model's context holds; None if its configuration does not say.
        left_out: questions that were left out with their replies, oldest first.
    """

    ids: list[int]
    limit: int | None
    left_out: int

    def max_reply(self, requested: int) -> int:
        """Tokens that the reply may have, at most those requested."""
        return requested if self.limit is None else min(requested, self.limit - len(self.ids))


def context_of(config: "PretrainedConfig") -> int | None:
    """Tokens that a model's context holds, according to its configuration; None if it does not say."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def fit_prompt(template: Template, messages: Sequence[Message], limit: int | None, reply: int) -> Prompt:
    """Make the prompt of a conversation, without its oldest turns if they would leave too little room for the reply.

    The reply needs room for ``reply`` tokens or a quarter of the context, whichever is less. The system prompt and the
    last question always stay.

    Raises:
        WorkbenchError: these two alone do not fit, or the template rejects the conversation.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    turns = _turns(messages[len(system) :])
    reserved = 1 if limit is None else min(reply, max(limit // 4, 1))
    for left_out in range(len(turns)):
        remaining = [*system, *(message for turn in turns[left_out:] for message in turn)]
        ids = template.encode_prompt([message.model_dump() for message in remaining])
        is_last = left_out == len(turns) - 1
        if limit is None or len(ids) + (1 if is_last else reserved) <= limit:
            return Prompt(ids, limit, left_out)
    raise WorkbenchError(
        f"The prompt is {len(ids)} tokens long; the model's context is {limit} tokens.",
        "Shorten the question or the system prompt.",
        kind="context_full",
    )


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Each question with the messages up to the next one; messages before the first question are a turn too."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns or [[]]
