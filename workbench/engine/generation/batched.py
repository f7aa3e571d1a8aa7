"""Many replies at once: greedy, and the same ones as a chat would give one by one.

Prompts are padded on the left, and what is padding is masked, so that each row sees its own tokens at their own places.
In float32 the replies are the same to the last token. In 16 bits the sums of a batch round otherwise than those of a
single row: where two tokens are all but equally likely, the other one may be chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from workbench.engine.batches.oom_split import split_on_oom
from workbench.engine.generation.context import context_of
from workbench.engine.generation.generation import GREEDY, Cancelled, StopWhen, drawing
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id
from workbench.progress import Progress


def greedy_replies(
    base: LoadedBase,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    max_new_tokens: int,
    tokens_at_once: int,
    report: Callable[[Progress], None],
    cancelled: Cancelled,
) -> list[str | None] | None:
    """Continue each prompt with what is active on ``base``.

    Args:
        ends: tokens that end a reply.
        tokens_at_once: prompts and replies in a batch have no more tokens than this together, padding included, unless
            a single one has; a batch that does not fit in memory all the same is halved.

    Returns:
        The replies, None for a prompt that leaves no room for one in the model's context. None when cancelled.
    """
    limit = context_of(base.model.config)
    rooms = [max_new_tokens if limit is None else min(max_new_tokens, limit - len(prompt)) for prompt in prompts]
    answerable = [place for place in range(len(prompts)) if prompts[place] and rooms[place] > 0]
    batches = _batches(answerable, prompts, rooms, tokens_at_once)
    replies: dict[int, str] = {}
    for done, batch in enumerate(batches):
        ticking = _Ticking(cancelled, report, done, len(batches), rooms[batch[0]])
        made = split_on_oom(
            partial(_continue, base, rooms[batch[0]], ends, ticking), [prompts[place] for place in batch]
        )
        if cancelled.is_set():
            return None
        replies.update(zip(batch, made, strict=True))
    return [replies.get(place) for place in range(len(prompts))]


@dataclass
class _Ticking:
    """Told of each token, as generation asks after it whether to stop; reports how far it is."""

    cancelled: Cancelled
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
    """Prompts of like length together; those with less room than others never share a batch with them."""
    batches: list[list[int]] = []
    for place in sorted(places, key=lambda place: (len(prompts[place]), rooms[place])):
        rows = len(batches[-1]) + 1 if batches else 1
        # The longest of the batch is the one that comes last.
        fits = rows * (len(prompts[place]) + rooms[place]) <= tokens_at_once
        if batches and fits and rooms[batches[-1][0]] == rooms[place]:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _continue(
    base: LoadedBase, room: int, ends: Sequence[int], cancelled: Cancelled, prompts: list[Sequence[int]]
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
            stopping_criteria=StoppingCriteriaList([StopWhen(cancelled)]),
            pad_token_id=pad,
            eos_token_id=list(ends),
            **drawing(GREEDY),
        )
    return [_reply(base.tokenizer, row, ends) for row in output[:, width:].tolist()]


def _reply(tokenizer: Any, tokens: list[int], ends: Sequence[int]) -> str:
    """The text of one row; what follows its end is padding."""
    end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    return str(tokenizer.decode(tokens[:end], skip_special_tokens=True))
