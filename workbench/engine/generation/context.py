"""Turns a conversation into a prompt, without its oldest turns if they do not fit into the model's context."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Prompt:
    """The tokens that the model continues.

    Attributes:
        limit: the model's context length in tokens; None if its configuration does not state it.
        left_out: how many of the oldest questions were left out, with their replies.
    """

    ids: list[int]
    limit: int | None
    left_out: int

    def max_reply(self, requested: int) -> int:
        """The largest number of tokens for the reply: ``requested``, or less if the context is full earlier."""
        return requested if self.limit is None else min(requested, self.limit - len(self.ids))


def context_length(config: "PretrainedConfig") -> int | None:
    """The context length in a model's configuration, in tokens; None if it does not state one."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def fit_prompt(
    template: Template,
    messages: Sequence[Message],
    limit: int | None,
    max_new_tokens: int,
    tools: Sequence[dict[str, Any]] = (),
) -> Prompt:
    """Make the prompt of a conversation; leave out its oldest turns until there is enough room for the reply.

    Enough room is ``max_new_tokens`` or a quarter of the context, whichever is less. The system prompt and the last
    question always stay; if only these are left, room for one token is enough.

    Args:
        limit: the model's context length in tokens, if known.
        max_new_tokens: the largest number of tokens requested for the reply.
        tools: JSON schemas of the functions that the model may call.

    Raises:
        WorkbenchError: the system prompt and the last question alone do not fit, or the template rejects the
            conversation or writes no tools.
    """
    template.check_tools(tools)
    system = [message for message in messages[:1] if message.role == "system"]
    turns = _turns(messages[len(system) :])
    enough_room = 1 if limit is None else min(max_new_tokens, max(limit // 4, 1))
    for left_out in range(len(turns)):
        remaining = [*system, *(message for turn in turns[left_out:] for message in turn)]
        ids = template.encode_prompt([message.model_dump() for message in remaining], tools)
        only_last_question = left_out == len(turns) - 1
        if limit is None or len(ids) + (1 if only_last_question else enough_room) <= limit:
            return Prompt(ids, limit, left_out)
    raise WorkbenchError(
        f"The prompt is {len(ids)} tokens long; the model's context is {limit} tokens.",
        "Shorten the question or the system prompt.",
        kind="context_full",
    )


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Group messages into turns that each begin with a question; messages before the first question are a turn too."""
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns or [[]]
