"""Loss on records the model was not trained on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.engine.batches.oom_split import split_on_oom
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id
from workbench.progress import Progress


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
    *,
    padded: bool,
) -> HeldOutLoss | None:
    """Evaluate what is active on ``base``. None when cancelled, or when no token is labelled.

    Args: see :func:`record_losses`.
    """
    found = record_losses(base, records, batch_size, report, cancelled, padded=padded)
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
    *,
    padded: bool,
) -> list[RecordLoss] | None:
    """The loss of each record, in their order, of what is active on ``base``. None when cancelled.

    Args:
        records: a dataset with ``input_ids`` and ``labels`` (-100 where a token is not counted).
        batch_size: records at once. The logits are never held whole (TRL's fused head), so that an evaluation needs no
            more memory than a training step of the same batch; where even that is too much, batches are halved.
        padded: the model cannot be given records end to end (:func:`~workbench.engine.model.packing_check.why_padded`).
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from workbench.engine.kernels.padding_free import TrainedTokensCollator

    padding = pad_token_id(base.tokenizer)
    if padded:
        head, losses_of, collate = base.fused_head(), _padded_losses, DataCollatorForLanguageModeling(padding)
    else:
        head, losses_of = base.padding_free_head(), _flat_losses
        collate = TrainedTokensCollator(padding, padding_free=True)
    # Records of like length share a batch: less padding, and none that holds much more than the others.
    order = sorted(range(len(records)), key=lambda index: len(records[index]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    model = base.active
    was_training = model.training
    found: dict[int, RecordLoss] = {}
    model.eval()
    try:
        with head, torch.inference_mode():
            for done, batch in enumerate(batches):
                if cancelled():
                    return None
                report(Progress(phase="evaluating", fraction=done / len(batches)))
                losses = split_on_oom(lambda part: losses_of(base, model, collate, part), [records[i] for i in batch])
                found.update(zip(batch, losses, strict=True))
    finally:
        model.train(was_training)
    return [found[index] for index in range(len(order))]


def _padded_losses(base: LoadedBase, model: Any, collate: Any, batch: list[Any]) -> list[RecordLoss]:
    output = _told(base, model, collate(batch))
    # What is not labelled counts as zero in each of them.
    return _of_each(-output.log_probs.double().sum(1), output.label_mask.sum(1), output.is_top1.sum(1))


def _flat_losses(base: LoadedBase, model: Any, collate: Any, batch: list[Any]) -> list[RecordLoss]:
    import torch

    inputs = collate(batch)
    rows = inputs["labels"][0].split([len(record["input_ids"]) for record in batch])
    # The head is given trained tokens alone, in the order of the records.
    counts = torch.stack([(labels != -100).sum() for labels in rows])
    output = _told(base, model, inputs)

    def summed(values: Any) -> Any:
        return torch.stack([part.sum() for part in values[0].split(counts.tolist())])

    return _of_each(-summed(output.log_probs.double()), counts, summed(output.is_top1))


def _told(base: LoadedBase, model: Any, inputs: dict[str, Any]) -> Any:
    inputs = {name: value.to(base.device) if hasattr(value, "to") else value for name, value in inputs.items()}
    return model(**inputs, use_cache=False, fused_lm_head=True)


def _of_each(*columns: Any) -> list[RecordLoss]:
    """Read back from the device, once a column."""
    return [
        RecordLoss(loss, int(tokens), int(right))
        for loss, tokens, right in zip(*(column.tolist() for column in columns), strict=True)
    ]
