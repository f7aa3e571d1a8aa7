"""Compares the predicted with the measured peak memory of all runs of a home."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from workbench.runs.events import MeasuredPeak, PredictedPeak
from workbench.runs.summary import RunSummary

TOLERANCE = 0.05
"""Above this relative error, the term that most likely is wrong is named."""

_RESTING_TERMS = ("weights", "quantisation_constants", "adapters")
_TRANSIENT_TERMS = ("gradients", "optimizer", "saved_activations", "recomputation", "logits", "loss", "workspace")


@dataclass(frozen=True)
class Comparison:
    """Predicted and measured peak memory of a run.

    Attributes:
        method: how it was predicted: ``trace`` or ``closed-form``.
        predicted, measured: allocated memory at the peak, in bytes.
        nvml: the driver's figure for the process at the end of the training; None if unknown.
        error: (predicted − measured) / measured.
        suspect: the term that most likely is wrong; empty if the error is within the tolerance.
    """

    run: str
    model: str
    method: str
    predicted: int
    measured: int
    predicted_reserved: int
    measured_reserved: int
    nvml: int | None
    error: float
    suspect: str

    @classmethod
    def of(cls, summary: RunSummary) -> Self | None:
        """Compare a run; None if it lacks either peak."""
        predicted, measured, error = summary.predicted_peak, summary.measured_peak, summary.peak_error
        if predicted is None or measured is None or error is None:
            return None
        return cls(
            run=summary.id,
            model=summary.model,
            method=predicted.get("method", ""),
            predicted=predicted["allocated_bytes"],
            measured=measured["allocated"],
            predicted_reserved=predicted.get("reserved_bytes", 0),
            measured_reserved=measured.get("reserved", 0),
            nvml=measured.get("nvml"),
            error=error,
            suspect=suspect_of(predicted, measured) if abs(error) > TOLERANCE else "",
        )


@dataclass(frozen=True)
class Calibration:
    """The relative errors of several runs: ``mean`` and ``worst`` are of absolute values, ``bias`` of signed ones."""

    runs: tuple[Comparison, ...]

    @property
    def mean(self) -> float | None:
        return fmean(abs(run.error) for run in self.runs) if self.runs else None

    @property
    def bias(self) -> float | None:
        return fmean(run.error for run in self.runs) if self.runs else None

    @property
    def worst(self) -> float | None:
        return max((abs(run.error) for run in self.runs), default=None)


def calibrate(summaries: Iterable[RunSummary]) -> Calibration:
    """Compare the runs that have both peaks, in the given order."""
    compared = (Comparison.of(summary) for summary in summaries)
    return Calibration(tuple(run for run in compared if run is not None))


def suspect_of(predicted: PredictedPeak, measured: MeasuredPeak) -> str:
    """The term of the prediction that most likely explains the difference.

    Memory before the first step is measured separately. If at least half of the difference is already there, the
    largest resting term (weights, adapters, …) is suspected, else the largest transient one.
    """
    terms = predicted.get("terms", {})
    difference = predicted["allocated_bytes"] - measured["allocated"]
    resting_difference = sum(terms.get(name, 0) for name in _RESTING_TERMS) - (measured.get("resting") or 0)
    is_resting = bool(measured.get("resting")) and resting_difference / difference >= 0.5
    return max(_RESTING_TERMS if is_resting else _TRANSIENT_TERMS, key=lambda name: terms.get(name, 0))
