"""Generates greedy replies to many prompts in batches; they equal the replies that chat generates one by one.

Prompts are padded on the left and the padding is masked, so that each row has its own tokens at their own positions. In
float32 the replies are identical. In 16 bits, a batch rounds differently from a single row: if two tokens are almost
equally likely, the other one may be chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from workbench.engine.batches.oom_split import split_on_oom
from workbench.engine.generation.context import context_of
from workbench.engine.generation.generation import GREEDY, StopSignal, StopWhen, sampling_arguments
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id
from workbench.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def greedy_replies(
    base: LoadedBase,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
    tokens_at_once: int,
    report: Callable[[Progress], None],
    cancelled: StopSignal,
) -> list[str | None] | None:
    """Continue each prompt with the active adapters of ``base``.

    Args:
        ends: tokens that end a reply.
        tokens_at_once: limit for the tokens of a batch, prompts, replies and padding included; a single prompt may
            exceed it. A batch that does not fit in memory anyway is halved.

    Returns:
        The replies; None for a prompt that leaves no room for a reply in the model's context. None if cancelled.
    """
    limit = context_of(base.model.config)
    rooms = [max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt)) for prompt in prompts]
    answerable = [place for place in range(len(prompts)) if prompts[place] and rooms[place] > 0]
    batches = _batches(answerable, prompts, rooms, tokens_at_once)
    replies: dict[int, str] = {}
    for done, batch in enumerate(batches):
        signal = _ReportingSignal(cancelled, report, done, len(batches), rooms[batch[0]])
        texts = split_on_oom(
            partial(_continue, base, rooms[batch[0]], ends, signal), [prompts[place] for place in batch]
        )
        if cancelled.is_set():
            return None
        replies.update(zip(batch, texts, strict=True))
    return [replies.get(place) for place in range(len(prompts))]


@dataclass
class _ReportingSignal:
    """A stop signal that also reports progress, since generation checks it after each token."""

    cancelled: StopSignal
    report: Callable[[Progress], None]
    done: int
    batches: int
    room: int
    tokens: int = 0

    def is_set(self) -> bool:
        self.report(Progress(phase="replying", fraction=(self.done + min(self.tokens / self.room, 1)) / self.batches))
        self.tokens += 1
        return self.cancelled.is_set()


def _batches(
    places: Sequence[int], prompts: Sequence[Sequence[int]], rooms: Sequence[int], tokens_at_once: int
) -> list[list[int]]:
    """Group prompts of similar length, and of the same room for a reply, into batches of indices."""
    batches: list[list[int]] = []
    for place in sorted(places, key=lambda place: (len(prompts[place]), rooms[place])):
        rows = len(batches[-1]) + 1 if batches else 1
        # The last prompt of a batch is its longest.
        fits = rows * (len(prompts[place]) + rooms[place]) <= tokens_at_once
        if batches and fits and rooms[batches[-1][0]] == rooms[place]:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _continue(
    base: LoadedBase, room: int, ends: Sequence[int], signal: StopSignal, prompts: list[Sequence[int]]
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
            max_new_tokens=room,
            stopping_criteria=StoppingCriteriaList([StopWhen(signal)]),
            pad_token_id=pad,
            eos_token_id=list(ends),
            **sampling_arguments(GREEDY),
        )
    return [_text(base.tokenizer, row, ends) for row in output[:, width:].tolist()]


def _text(tokenizer: "PreTrainedTokenizerBase", tokens: list[int], ends: Sequence[int]) -> str:
    """The text of one row up to its end token; the rest is padding."""
    end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    return str(tokenizer.decode(tokens[:end], skip_special_tokens=True))
