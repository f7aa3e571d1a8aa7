"""Replies of adapters with a head of their own: the labels of a text with their probabilities, or a reply's score."""

import math
import time
from collections.abc import Callable, Sequence

from workbench.data.records.conversation import Conversation
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message, ReplyPiece
from workbench.engine.generation.context import context_length
from workbench.engine.generation.label_evaluation import text_outputs
from workbench.engine.kernels.loss_path import PADDED
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.errors import WorkbenchError

# Labels that a reply lists, the likeliest first.
_SHOWN_LABELS = 10


def head_reply(
    base: LoadedBase, template: Template, messages: Sequence[Message], emit: Callable[[ReplyPiece], None]
) -> None:
    """Reply with what the active adapter's head says of a conversation.

    A classifier of texts reads the last message, one of conversations all of them; a reward model scores the last
    message, which must be a reply.

    Raises:
        WorkbenchError: the text is longer than the model's context, or there is no reply to score.
    """
    assert base.head is not None
    started = time.monotonic()
    ids = _tokens(base.head, template, messages)
    limit = context_length(base.model.config)
    if limit is not None and len(ids) > limit:
        raise WorkbenchError(
            f"The text has {len(ids):,} tokens, more than the model's context of {limit:,}.",
            "Shorten it.",
            kind="prompt_too_long",
        )
    (outputs,) = text_outputs(base, [ids], PADDED)
    text = outputs_text(base.head, outputs)
    size = ReplyPiece(prompt_tokens=len(ids), context_tokens=limit or 0)
    emit(size.model_copy(update={"text": text}))
    message = Message(role="assistant", content=text)
    seconds = time.monotonic() - started
    emit(size.model_copy(update={"done": True, "message": message, "reason": "end", "first_token_seconds": seconds}))


def probabilities(outputs: Sequence[float]) -> list[float]:
    """The softmax of a head's outputs."""
    most = max(outputs)
    weights = [math.exp(value - most) for value in outputs]
    total = sum(weights)
    return [weight / total for weight in weights]


def _tokens(head: SequenceHead, template: Template, messages: Sequence[Message]) -> list[int]:
    turns = [message.model_dump(exclude_none=True) for message in messages]
    if head.kind == "reward":
        if not turns or turns[-1]["role"] != "assistant":
            raise WorkbenchError(
                "This adapter is a reward model: it scores replies and writes none.",
                "End the conversation with the reply to score, as a message of the role assistant; `loraworkbench "
                "evaluate` measures how often it prefers the chosen responses of held-out pairs.",
                kind="reward_model",
            )
        return template.encode_conversation(Conversation(turns)).input_ids
    content = Conversation(turns) if head.reads_turns else str(turns[-1]["content"])
    return template.encode_pieces([template.sequence_pieces(content)])[0].input_ids


def outputs_text(head: SequenceHead, outputs: Sequence[float]) -> str:
    """A head's outputs as text: the labels with their probabilities, the likeliest first; or the score."""
    if head.kind == "reward":
        return f"score {outputs[0]:+.3f}"
    ranked = sorted(zip(probabilities(outputs), head.labels, strict=True), reverse=True)
    lines = [f"{label}  {share:.1%}" for share, label in ranked[:_SHOWN_LABELS]]
    rest = len(ranked) - len(lines)
    return "\n".join([*lines, f"and {rest} more"] if rest else lines)
