"""The run's own records as batches for a start, in a random order that the seed determines. Imports torch."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch

from workbench.engine.model.base import LoadedBase
from workbench.engine.training.run_end import StoppedBeforeFirstStep
from workbench.errors import WorkbenchError
from workbench.progress import Progress, Report

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.modeling_outputs import ModelOutput

Batch = dict[str, torch.Tensor]
Row = dict[str, list[int]]


class Steps:
    """Reports the progress of a start, and ends a run that is stopped between two batches."""

    def __init__(self, label: str, report: Report, is_stopped: Callable[[], bool]) -> None:
        self._label, self._report, self._is_stopped = label, report, is_stopped

    def next(self, detail: str, fraction: float | None = None) -> None:
        """Called before each piece of work."""
        if self._is_stopped():
            raise StoppedBeforeFirstStep
        self._report(Progress(phase="preparing", fraction=fraction, detail=f"{self._label}: {detail}"))


def record_batches(records: "Dataset", seed: int, pad: int, count: int) -> list[Batch]:
    """At most ``count`` batches of one record each."""
    return [_batch([row], pad) for row in islice(_rows(records, seed), count)]


def large_batches(records: "Dataset", seed: int, pad: int, least: int, most: int) -> list[Batch]:
    """At most ``most`` batches of records that train ``least`` tokens or more.

    Raises:
        WorkbenchError: all records together train fewer.
    """
    batches: list[Batch] = []
    rows: list[Row] = []
    trained = 0
    for row in _rows(records, seed):
        rows.append(row)
        trained += sum(label != -100 for label in row["labels"])
        if trained >= least:
            batches.append(_batch(rows, pad))
            rows, trained = [], 0
        if len(batches) == most:
            break
    if not batches:
        raise WorkbenchError(
            f"EVA with adapter.r and rho as they are needs {least:,} trained tokens, and the records have {trained:,}.",
            "Lower adapter.r or rho, train on more records, or set adapter.init_lora_weights to true.",
            kind="adapter_start",
        )
    return batches


def computed(base: LoadedBase, batch: Batch) -> "ModelOutput":
    """The log-probabilities of a batch's trained tokens; within :meth:`LoadedBase.loss_path`."""
    inputs = {name: tensor.to(base.device) for name, tensor in batch.items()}
    return base.active(**inputs, use_cache=False, fused_lm_head=True)


def _rows(records: "Dataset", seed: int) -> Iterator[Row]:
    """The records in a random order; those that are packed into one row each by itself."""
    for index in torch.randperm(len(records), generator=torch.Generator().manual_seed(seed)).tolist():
        row, start = records[index], 0
        for length in row.get("seq_lengths") or [len(row["input_ids"])]:
            yield {name: row[name][start : start + length] for name in ("input_ids", "labels")}
            start += length


def _batch(rows: Sequence[Row], pad: int) -> Batch:
    longest = max(len(row["input_ids"]) for row in rows)

    def filled(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([list(row[name]) + [filler] * (longest - len(row[name])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    return {"input_ids": filled("input_ids", pad), "labels": filled("labels", -100), "attention_mask": mask}


class Endless:
    """Batches over and over, as PEFT's EVA takes them, until they were passed ``most`` times."""

    def __init__(self, batches: Sequence[Batch], steps: Steps, most: int, too_many: Callable[[], Exception]) -> None:
        self._batches, self._steps, self._most, self._too_many = batches, steps, most, too_many
        self.taken = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        # PEFT reads this once and repeats what it has read, so it never ends here.
        while True:
            for batch in self._batches:
                if self.taken >= self._most:
                    raise self._too_many()
                self.taken += 1
                self._steps.next(f"batch {self.taken}")
                yield batch
