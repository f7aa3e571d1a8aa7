"""Computes the loss on held-out records, as a mean or record by record."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from workbench.engine.batches.oom_split import split_on_oom
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.models.tokenizers import pad_token_id
from workbench.progress import Cancelled, Progress, Report

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers.modeling_outputs import ModelOutput

    from workbench.engine.kernels.loss_head import TrainedTokensCollator

Record = dict[str, list[int]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class HeldOutLoss:
    """``loss``: mean negative log-likelihood in nats over ``tokens`` labeled tokens, weighted by token."""

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
    """Loss of one record.

    Attributes:
        loss: negative log-likelihood in nats, summed over its labeled tokens.
        tokens: number of labeled tokens.
        correct: how many of them were the model's first choice.
    """

    loss: float
    tokens: int
    correct: int


def held_out_loss(
    base: LoadedBase,
    records: "Dataset | Sequence[Record]",
    batch_size: int,
    report: Report,
    cancelled: Cancelled,
    *,
    path: LossPath,
) -> HeldOutLoss | None:
    """The mean loss of all records; None if cancelled, or if no token is labeled.

    Takes the same arguments as :func:`record_losses`.
    """
    found = record_losses(base, records, batch_size, report, cancelled, path=path)
    losses = [loss for loss in found if loss is not None]
    tokens = sum(record.tokens for record in losses)
    if len(losses) < len(found) or not tokens:
        return None
    total = math.fsum(record.loss for record in losses)
    return HeldOutLoss(total / tokens, tokens, sum(record.correct for record in losses))


def record_losses(
    base: LoadedBase,
    records: "Dataset | Sequence[Record]",
    batch_size: int,
    report: Report,
    cancelled: Cancelled,
    *,
    path: LossPath,
) -> list[RecordLoss | None]:
    """The loss of each record, in order, with the active adapters of ``base``; None for those left when cancelled.

    Args:
        records: have ``input_ids`` and ``labels`` (-100 for tokens that do not count).
        batch_size: records per batch. TRL's fused head never holds all logits, so an evaluation needs no more memory
            than a training step with the same batch; if even that is too much, batches are halved.
        path: how the loss is computed (:func:`~workbench.engine.model.loss_check.check.check_loss`).
    """
    collate = path.collator(pad_token_id(base.tokenizer))
    batch_size = 1 if path.one_record else batch_size
    # Records of similar length share a batch: less padding, and batches of similar size.
    order = sorted(range(len(records)), key=lambda index: len(records[index]["input_ids"]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    # What is known when it is cancelled should not be the short records only.
    random.Random(0).shuffle(batches)
    found = in_batches(base, path, records, batches, lambda part: _losses(base, collate, part), report, cancelled)
    pairs = (pair for batch, losses in zip(batches, found, strict=False) for pair in zip(batch, losses, strict=True))
    results = dict(pairs)
    return [results.get(index) for index in range(len(order))]


def in_batches(
    base: LoadedBase,
    path: LossPath,
    records: "Dataset | Sequence[Record]",
    batches: Sequence[Sequence[int]],
    compute: Callable[[list[Record]], list[Result]],
    report: Report,
    cancelled: Cancelled,
) -> list[list[Result]]:
    """What is computed of each batch of records, with the active adapters of ``base`` in evaluation mode.

    Args:
        batches: indices of records.
        compute: gives one result per record; is called with halves of a batch that does not fit in memory.

    Returns:
        The results by batch, only of the first ones if cancelled.
    """
    import torch

    model = base.active
    was_training = model.training
    results: list[list[Result]] = []
    model.eval()
    try:
        with base.loss_path(path), torch.inference_mode():
            for done, batch in enumerate(batches):
                if cancelled():
                    break
                detail = f"batch {done + 1} of {len(batches)}"
                report(Progress(phase="evaluating", fraction=done / len(batches), detail=detail))
                results.append(split_on_oom(compute, [records[index] for index in batch]))
    finally:
        model.train(was_training)
    return results


def forward(base: LoadedBase, batch: "Mapping[str, torch.Tensor | int]") -> "ModelOutput":
    """The output of the fused head for a collated batch, with the active adapters of ``base``."""
    inputs = {name: value if isinstance(value, int) else value.to(base.device) for name, value in batch.items()}
    return base.active(**inputs, use_cache=False, fused_lm_head=True)


def _losses(base: LoadedBase, collate: "TrainedTokensCollator", batch: list[Record]) -> list[RecordLoss]:
    import torch

    inputs = collate(batch)
    # The head gets only the trained tokens, in the order of the records; nothing predicts a record's first token.
    counts = torch.tensor([sum(label != -100 for label in record["labels"][1:]) for record in batch])
    output = forward(base, inputs)

    def sum_by_record(values: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.sum() for part in values[0].split(counts.tolist())])

    return _record_losses(-sum_by_record(output.log_probs.double()), counts, sum_by_record(output.is_top1))


def _record_losses(*columns: "torch.Tensor") -> list[RecordLoss]:
    """Losses, token counts and correct counts of a batch, copied from the device once per column."""
    return [
        RecordLoss(loss, int(tokens), int(correct))
        for loss, tokens, correct in zip(*(column.tolist() for column in columns), strict=True)
    ]
