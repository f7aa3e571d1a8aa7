"""Predicts the labels of texts with the active adapter's head, and evaluates them on held-out records."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.engine.generation.evaluation import Record, in_batches
from workbench.engine.generation.shared_evaluation import SyncedCancel
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.evaluation.classification import label_counts, macro_f1
from workbench.models.tokenizers import pad_token_id
from workbench.progress import Progress

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from workbench.engine.batches.parts import Batch


@dataclass(frozen=True)
class Predicted:
    """What the head says of one text.

    Attributes:
        loss: negative log-likelihood of its label, in nats.
        label: the id of the likeliest label.
    """

    loss: float
    label: int


@dataclass(frozen=True)
class HeldOutLabels:
    """Means over held-out records: ``loss`` in nats per text, accuracy, and macro-F1."""

    loss: float
    accuracy: float
    macro_f1: float
    records: int


def head_outputs(base: LoadedBase, batch: "Batch") -> "torch.Tensor":
    """The outputs of the active adapter's head for a batch of texts; (texts, outputs)."""
    from workbench.engine.objectives.texts import model_inputs, sequence_ends

    inputs = {**model_inputs(batch), "sequence_ends": sequence_ends(batch, pad_token_id(base.tokenizer))}
    inputs = {name: value if isinstance(value, int) else value.to(base.device) for name, value in inputs.items()}
    outputs: torch.Tensor = base.active(**inputs, use_cache=False).logits
    return outputs


def text_outputs(base: LoadedBase, texts: Sequence[Sequence[int]], path: LossPath) -> list[list[float]]:
    """The head's outputs for texts as token ids, one after the other."""
    records = [{"input_ids": list(ids), "labels": list(ids)} for ids in texts]
    return head_outputs_of(base, records, 1, lambda progress: None, bool, path=path)


def head_outputs_of(
    base: LoadedBase,
    records: "Dataset | Sequence[Record]",
    batch_size: int,
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    *,
    path: LossPath,
) -> list[list[float]]:
    """The outputs of the active adapter's head for records; only of the first ones if cancelled.

    Args:
        records: have ``input_ids`` and ``labels``.
    """
    batch_size = 1 if path.one_record else batch_size
    batches = [range(start, min(start + batch_size, len(records))) for start in range(0, len(records), batch_size)]

    def compute(rows: list[Record]) -> list[list[float]]:
        outputs: list[list[float]] = head_outputs(base, _collated(base, path, rows)).double().tolist()
        return outputs

    found = in_batches(base, path, records, batches, compute, report, cancelled)
    return [outputs for batch in found for outputs in batch]


def predicted_labels(
    base: LoadedBase,
    records: "Dataset | Sequence[Record]",
    batch_size: int,
    report: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    *,
    path: LossPath,
) -> list[Predicted]:
    """What the active adapter's head says of records; only of the first ones if cancelled.

    Args:
        records: have ``input_ids``, ``labels`` and ``label``, the id of the label.
    """
    import torch

    found = head_outputs_of(base, records, batch_size, report, cancelled, path=path)
    logits = torch.tensor(found, dtype=torch.float64)
    label = torch.tensor([records[place]["label"] for place in range(len(found))])
    losses = torch.nn.functional.cross_entropy(logits, label, reduction="none") if found else logits
    pairs = zip(losses.tolist(), logits.argmax(-1).tolist() if found else [], strict=True)
    return [Predicted(loss, guess) for loss, guess in pairs]


def held_out_labels(
    base: LoadedBase,
    records: "Dataset",
    batch_size: int,
    report: Callable[[Progress], None],
    controls: Controls,
    ranks: Ranks,
    *,
    path: LossPath,
) -> HeldOutLabels | None:
    """Evaluate held-out records over all processes; None if the run should stop."""
    import numpy as np

    assert base.head is not None
    cancelled = SyncedCancel(controls, ranks, len(records), batch_size)
    share = records.select(range(ranks.index, len(records), ranks.count))
    found = predicted_labels(base, share, batch_size, report, cancelled, path=path)
    if controls.is_stopped():
        return None
    counts = label_counts(share["label"][: len(found)], [one.label for one in found], base.head.outputs)
    own = (len(found), math.fsum(one.loss for one in found), *counts.ravel().tolist())
    number, loss, *totals = ranks.sum(own)
    if not number:
        return None
    whole = np.array(totals).reshape(3, -1)
    return HeldOutLabels(loss / number, float(whole[0].sum()) / number, float(macro_f1(whole)), int(number))


def _collated(base: LoadedBase, path: LossPath, rows: Sequence[Record]) -> "Batch":
    from workbench.engine.objectives.labels import LabelCollator

    return LabelCollator(path.collator(pad_token_id(base.tokenizer)))(rows)
