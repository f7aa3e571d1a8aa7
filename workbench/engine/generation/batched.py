"""Generates greedy replies to many prompts in batches; they equal the replies that chat generates one by one.

Prompts are padded on the left and the padding is masked, so that each prompt keeps the positions that it has alone. In
float32 the replies are identical. In 16 bits, a batch rounds differently from a single prompt: of two almost equally
likely tokens, it may choose the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from workbench.engine.batches.oom_split import split_on_oom
from workbench.engine.generation.context import context_length
from workbench.engine.generation.generation import GREEDY, StopSignal, StopWhen, sampling_arguments
from workbench.engine.model.base import LoadedBase
from workbench.models.tokenizers import pad_token_id
from workbench.progress import Progress, Report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def greedy_replies(
    base: LoadedBase,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
    tokens_at_once: int,
    report: Report,
    cancelled: StopSignal,
) -> list[str | None]:
    """Continue each prompt with the active adapters of ``base``.

    Args:
        ends: tokens that end a reply.
        tokens_at_once: largest number of tokens in a batch, including prompts, replies and padding; a single prompt
            may exceed it. A batch that still does not fit in memory is halved.

    Returns:
        One reply per prompt: None for an empty prompt, if the model's context has no room for a reply, and for those
        left when cancelled.
    """
    limit = context_length(base.model.config)
    reply_limits = [max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt)) for prompt in prompts]
    answerable = [index for index in range(len(prompts)) if prompts[index] and reply_limits[index] > 0]
    batches = _batches(answerable, prompts, reply_limits, tokens_at_once)
    replies: dict[int, str] = {}
    for batches_done, batch in enumerate(batches):
        signal = _ReportingSignal(cancelled, report, batches_done, len(batches), reply_limits[batch[0]])
        texts = split_on_oom(
            partial(_continue, base, reply_limits[batch[0]], ends, signal), [prompts[index] for index in batch]
        )
        if cancelled.is_set():
            break
        replies.update(zip(batch, texts, strict=True))
    return [replies.get(index) for index in range(len(prompts))]


@dataclass
class _ReportingSignal:
    """The stop signal for one batch. It also reports progress, since generation checks it after each token.

    Attributes:
        batches: the number of all batches.
        reply_limit: largest number of tokens in a reply of this batch.
        tokens: tokens generated so far per reply.
    """

    cancelled: StopSignal
    report: Report
    batches_done: int
    batches: int
    reply_limit: int
    tokens: int = 0

    def is_set(self) -> bool:
        share_of_batch = min(self.tokens / self.reply_limit, 1)
        self.report(Progress(phase="replying", fraction=(self.batches_done + share_of_batch) / self.batches))
        self.tokens += 1
        return self.cancelled.is_set()


def _batches(
    indices: Sequence[int], prompts: Sequence[Sequence[int]], reply_limits: Sequence[int], tokens_at_once: int
) -> list[list[int]]:
    """Group prompts of similar length and equal reply limit into batches of indices."""
    batches: list[list[int]] = []
    for index in sorted(indices, key=lambda index: (len(prompts[index]), reply_limits[index])):
        rows = len(batches[-1]) + 1 if batches else 1
        # The prompts are sorted: the last of a batch is its longest.
        fits = rows * (len(prompts[index]) + reply_limits[index]) <= tokens_at_once
        if batches and fits and reply_limits[batches[-1][0]] == reply_limits[index]:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _continue(
    base: LoadedBase, reply_limit: int, ends: Sequence[int], signal: StopSignal, prompts: list[Sequence[int]]
) -> list[str]:
    import torch
    from transformers import StoppingCriteriaList

    pad = pad_token_id(base.tokenizer)
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=base.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=base.device)
    with torch.inference_mode():
        output = base.active.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=reply_limit,
            stopping_criteria=StoppingCriteriaList([StopWhen(signal)]),
            pad_token_id=pad,
            eos_token_id=list(ends),
            **sampling_arguments(GREEDY),
        )
    return [_text(base.tokenizer, row, ends) for row in output[:, width:].tolist()]


def _text(tokenizer: "PreTrainedTokenizerBase", tokens: list[int], ends: Sequence[int]) -> str:
    """Decode the tokens of a reply up to its end token; padding follows."""
    end = next((index + 1 for index, token in enumerate(tokens) if token in ends), len(tokens))
    return str(tokenizer.decode(tokens[:end], skip_special_tokens=True))
