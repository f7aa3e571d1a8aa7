"""Loss on records the model was not trained on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.engine.base import LoadedBase
from workbench.engine.halving import in_halves
from workbench.engine.protocol import Progress


@dataclass(frozen=True)
class HeldOutLoss:
    """``loss``: mean negative log-likelihood in nats over ``tokens`` labelled tokens, weighted by token."""

    loss: float
    tokens: int
    correct: int

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def token_accuracy(self) -> float:
        """Share of tokens that were the model's first choice."""
        return self.correct / self.tokens


@dataclass(frozen=True)
class RecordLoss:
    """Of one record: the negative log-likelihood in nats summed over its labelled tokens, their number, and how many
    were the model's first choice.
    """

    loss: float
    tokens: int
    correct: int


def held_out_loss(
    base: LoadedBase,
    records: Any,
    batch_size: int,
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> HeldOutLoss | None:
    """Evaluate what is active on ``base``. None when cancelled, or when no token is labelled.

    Args: see :func:`record_losses`.
    """
    found = record_losses(base, records, batch_size, report, cancelled)
    tokens = sum(record.tokens for record in found or ())
    if found is None or not tokens:
        return None
    total = math.fsum(record.loss for record in found)
    return HeldOutLoss(total / tokens, tokens, sum(record.correct for record in found))


def record_losses(
    base: LoadedBase,
    records: Any,
    batch_size: int,
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> list[RecordLoss] | None:
    """The loss of each record, in their order, of what is active on ``base``. None when cancelled.

    Args:
        records: a dataset with ``input_ids`` and ``labels`` (-100 where a token is not counted).
        batch_size: records at once. The logits are never held whole (TRL's fused head), so that an evaluation needs no
            more memory than a training step of the same batch; where even that is too much, batches are halved.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=pad_token_id(base.tokenizer))
    # Records of like length share a batch: less padding.
    order = sorted(range(len(records)), key=lambda index: len(records[index]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    model = base.active
    was_training = model.training
    found: dict[int, RecordLoss] = {}
    model.eval()
    try:
        with base.fused_head(), torch.inference_mode():
            for done, batch in enumerate(batches):
                if cancelled():
                    return None
                report(Progress(phase="evaluating", fraction=done / len(batches)))
                losses = in_halves(lambda part: _losses(base, model, collate, part), [records[i] for i in batch])
                found.update(zip(batch, losses, strict=True))
    finally:
        model.train(was_training)
    return [found[index] for index in range(len(order))]


def _losses(base: LoadedBase, model: Any, collate: Any, batch: list[Any]) -> list[RecordLoss]:
    inputs = {name: tensor.to(base.device) for name, tensor in collate(batch).items()}
    output = model(**inputs, use_cache=False, fused_lm_head=True)
    # What is not labelled counts as zero in each of them.
    columns = (-output.log_probs.double().sum(1), output.label_mask.sum(1), output.is_top1.sum(1))
    return [
        RecordLoss(loss, int(tokens), int(right))
        for loss, tokens, right in zip(*(c.tolist() for c in columns), strict=True)
    ]


def pad_token_id(tokenizer: Any) -> int:
    """Any id will do where padding is masked out of attention and labels."""
    return int(next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None))
