"""Checks that a resumed run computes the same as before the interruption."""

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts, library_versions

if TYPE_CHECKING:
    from datasets import Dataset

# Largest relative difference from adding the same numbers in another order, in any dtype that runs compute in.
_ROUNDING = 1e-2

TOKEN_COLUMNS = ("input_ids", "labels", "rejected_ids", "rejected_labels")
"""The columns of tokenized records; those of pairs have all four."""
_GOOD = "good"

Conditions = Mapping[str, object]
"""What a run's numbers depend on besides its recipe: device, dtypes, versions and so on, by readable names."""


def conditions_of(
    base: LoadedBase, data: "Dataset", *, processes: int, batches: str, kernels: str
) -> dict[str, object]:
    """Collect the conditions of a run when it starts or resumes, for the journal.

    Args:
        data: the training records, as token ids and labels.
        batches: how the loss is computed (:class:`~workbench.engine.kernels.loss_path.LossPath`).
        kernels: description of the fused kernels in use; empty for none.
    """
    device = device_facts()
    return {
        "training records": digest_of(data),
        "device": device.name,
        "compute dtype": base.precision.compute,
        "adapter dtype": base.precision.adapter,
        "processes": processes,
        "batches": batches,
        "fused kernels": kernels or "none",
        **library_versions(),
    }


def digest_of(data: "Dataset") -> str:
    """A short hash of the tokens and labels of a dataset, in order."""
    digest = hashlib.blake2b(digest_size=8)
    names = [name for name in (*TOKEN_COLUMNS, _GOOD) if name in data.column_names]
    for batch in data.select_columns(names).with_format("arrow").iter(10_000):
        for name in batch.column_names:
            lists = batch[name].combine_chunks()
            if name == _GOOD:
                digest.update(lists.to_numpy(zero_copy_only=False).tobytes())
                continue
            digest.update(lists.value_lengths().to_numpy(zero_copy_only=False).tobytes())
            digest.update(lists.flatten().to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def differences(before: Conditions, now: Conditions) -> list[str]:
    """Describe what changed, as in ``torch 2.13.0 → 2.14.1``; empty if nothing did, or nothing was recorded before."""
    changed = [name for name in before if name in now and before[name] != now[name]]
    return [
        "the training records changed" if name == "training records" else f"{name} {before[name]} → {now[name]}"
        for name in changed
    ]


class ResumeCheck:
    """Compares the first loss after a resume with the journal's loss for the same step.

    Args:
        losses: losses in the journal after the checkpoint, by step.
        changed: :func:`differences` of the conditions.
        warn: called with a warning for the journal, at most twice.
    """

    def __init__(self, losses: Mapping[int, float], changed: list[str], warn: Callable[[str], None]) -> None:
        self._losses = losses
        self._changed = changed
        self._warn = warn
        self._is_done = not losses
        if changed:
            warn(
                f"This run resumes with changed conditions: {'; '.join(changed)}. It may not reproduce "
                "the interrupted run exactly."
            )

    def see(self, step: int, loss: float) -> None:
        """Compare the loss of a step, if it is the first one after the resume that the journal has a loss for."""
        if self._is_done:
            return
        self._is_done = step >= max(self._losses)
        before = self._losses.get(step)
        if before is None:
            return
        self._is_done = True
        if loss != before:
            self._warn(
                f"The loss of step {step} is {loss:.6g} after resuming and was {before:.6g} before the "
                "interruption: the resumed run is not identical. Likely reason: "
                f"{self._reason(before, loss)}."
            )

    def _reason(self, before: float, now: float) -> str:
        if self._changed:
            return "; ".join(self._changed)
        if abs(now - before) <= _ROUNDING * abs(before):
            return "rounding: the device's kernels add in varying order"
        return (
            "unknown. No recorded condition has changed; check whether the model's files have. If "
            "not, please report it with the run's engine.log"
        )
