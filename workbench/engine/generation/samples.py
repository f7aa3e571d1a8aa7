"""Answers the same few prompts repeatedly during a run, so that the user sees how the model changes."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.sample import IGNORED
from workbench.data.templates.template import Template
from workbench.engine.generation.context import context_length
from workbench.engine.generation.generation import GREEDY, StopSignal, continue_prompt, end_tokens
from workbench.engine.generation.head_reply import outputs_text
from workbench.engine.generation.label_evaluation import text_outputs
from workbench.engine.kernels.loss_path import PADDED
from workbench.engine.model.base import LoadedBase
from workbench.estimate.peak import REPLY_TOKENS
from workbench.progress import Progress, Report

if TYPE_CHECKING:
    from datasets import Dataset

_PROMPTS = 3


@dataclass(frozen=True)
class SampledReply:
    """A prompt from the data, and the model's reply to it."""

    prompt: str
    reply: str


def sample_replies(
    base: LoadedBase,
    template: Template,
    records: "Dataset",
    report: Report = lambda _: None,
    cancelled: StopSignal | None = None,
) -> list[SampledReply]:
    """Reply greedily to the prompts of the first records, as chat would; leaves the model unchanged.

    Args:
        report: called before each reply. A head of its own says what it predicts of the whole records.
        cancelled: once set, the reply that is being generated ends, and is the last one.
        records: has ``input_ids`` and ``labels``; a record's prompt is everything before its first trained token.
    """
    cancelled = cancelled or threading.Event()
    model = base.active
    was_training = model.training
    model.eval()
    try:
        if base.head is not None:
            first = records.select(range(min(_PROMPTS, len(records))))
            return [_predicted(base, ids) for ids in first["input_ids"]]
        prompts = [
            _prompt(one["input_ids"], one["labels"]) for one in records.select(range(min(_PROMPTS, len(records))))
        ]
        replies: list[SampledReply] = []
        for number, prompt in enumerate(prompts):
            if cancelled.is_set():
                break
            detail = f"reply {number + 1} of {len(prompts)}"
            report(Progress(phase="sampling", fraction=number / len(prompts), detail=detail))
            reply = _sample(base, template, prompt, cancelled)
            replies += [reply] if reply is not None else []
        return replies
    finally:
        model.train(was_training)


def _sample(base: LoadedBase, template: Template, prompt: list[int], cancelled: StopSignal) -> SampledReply | None:
    """The reply to one prompt; None if the model's context has no room for it."""
    limit = context_length(base.model.config)
    max_new_tokens = REPLY_TOKENS if limit is None else min(REPLY_TOKENS, limit - len(prompt))
    if max_new_tokens < 1:
        return None
    ends = end_tokens(base, template)
    reply = continue_prompt(base, prompt, max_new_tokens, ends, GREEDY, cancelled=cancelled, in_training=True)
    decode = base.tokenizer.decode
    return SampledReply(decode(prompt, skip_special_tokens=True), decode(reply, skip_special_tokens=True))


def _predicted(base: LoadedBase, ids: list[int]) -> SampledReply:
    assert base.head is not None
    (outputs,) = text_outputs(base, [ids], PADDED)
    return SampledReply(base.tokenizer.decode(ids, skip_special_tokens=True), outputs_text(base.head, outputs))


def _prompt(ids: list[int], labels: list[int]) -> list[int]:
    """Tokens before the reply; for a text that is trained from its start, the first quarter."""
    reply = next((place for place, label in enumerate(labels) if label != IGNORED), 0)
    return ids[:reply] if reply > 1 else ids[: max(len(ids) // 4, 1)]
