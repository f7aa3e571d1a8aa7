"""The same few prompts answered again and again during a run, so that one sees the model change."""

import threading
from dataclasses import dataclass
from typing import Any

from workbench.data.sample import IGNORED
from workbench.data.templates.template import Template
from workbench.engine.generation.context import context_of
from workbench.engine.generation.generation import GREEDY, continue_prompt, end_tokens
from workbench.engine.model.base import LoadedBase

_PROMPTS = 3
_NEW_TOKENS = 64


@dataclass(frozen=True)
class SampledReply:
    prompt: str
    reply: str


def sample_replies(base: LoadedBase, template: Template, records: Any) -> list[SampledReply]:
    """Greedy replies to the prompts of the first records, as a chat would give them; the model is left as it was found.

    Args:
        records: a data set with ``input_ids`` and ``labels``; a record's prompt is what stands before its first trained
            token.
    """
    model = base.active
    was_training = model.training
    model.eval()
    try:
        prompts = [
            _prompt(one["input_ids"], one["labels"]) for one in records.select(range(min(_PROMPTS, len(records))))
        ]
        return [reply for prompt in prompts if (reply := _sample(base, template, prompt)) is not None]
    finally:
        model.train(was_training)


def _sample(base: LoadedBase, template: Template, prompt: list[int]) -> SampledReply | None:
    """The reply to one prompt; None where the model's context has no room for it."""
    limit = context_of(base.model.config)
    room = _NEW_TOKENS if limit is None else min(_NEW_TOKENS, limit - len(prompt))
    if room < 1:
        return None
    ends = end_tokens(base, template)
    reply = continue_prompt(base, prompt, room, ends, GREEDY, cancelled=threading.Event(), in_training=True)
    decode = base.tokenizer.decode
    return SampledReply(decode(prompt, skip_special_tokens=True), decode(reply, skip_special_tokens=True))


def _prompt(ids: list[int], labels: list[int]) -> list[int]:
    """Tokens before the reply; of a text that is trained from its start, the first quarter."""
    reply = next((place for place, label in enumerate(labels) if label != IGNORED), 0)
    return ids[:reply] if reply > 1 else ids[: max(len(ids) // 4, 1)]
