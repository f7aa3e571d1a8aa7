"""How far predicted peaks were from measured ones, over the runs of a home."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from workbench.runs.summary import RunSummary

TOLERANCE = 0.05
"""A relative error above this is looked into: a term of the prediction is suspected."""

_AT_REST = ("weights", "quantisation_constants", "adapters")
_MOVING = ("gradients", "optimizer", "saved_activations", "recomputation", "loss", "workspace")


@dataclass(frozen=True)
class Comparison:
    """A run whose peak was predicted and measured.

    Attributes:
        method: how it was predicted: ``trace`` or ``closed-form``.
        predicted: allocated memory at the peak in bytes, and so ``measured``.
        nvml: what the driver said of the process at the end of the training; None where it did not.
        error: (predicted − measured) / measured.
        suspect: the term that most likely is wrong; empty within the tolerance.
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
        """None for a run that lacks either figure."""
        predicted, measured, error = summary.predicted_peak, summary.measured_peak, summary.peak_error
        if predicted is None or measured is None or error is None:
            return None
        return cls(
            run=summary.id,
            model=summary.model,
            method=predicted["method"],
            predicted=predicted["allocated_bytes"],
            measured=measured["allocated"],
            predicted_reserved=predicted["reserved_bytes"],
            measured_reserved=measured["reserved"],
            nvml=measured.get("nvml"),
            error=error,
            suspect=suspect_of(predicted, measured) if abs(error) > TOLERANCE else "",
        )


@dataclass(frozen=True)
class Calibration:
    """The distribution of relative errors. ``mean`` and ``worst`` are of their absolute values, ``bias`` of them."""

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
    """Compare the runs that have both figures, in their order."""
    compared = (Comparison.of(summary) for summary in summaries)
    return Calibration(tuple(run for run in compared if run is not None))


def suspect_of(predicted: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The term that most likely explains the difference.

    What lies on the device before the first step was measured apart. If at least half of the difference is there
    already, it is one of the terms at rest, else one of those that come and go; of these, the largest.
    """
    terms = predicted["terms"]
    difference = predicted["allocated_bytes"] - measured["allocated"]
    at_rest = sum(terms.get(name, 0) for name in _AT_REST) - (measured.get("resting") or 0)
    is_at_rest = bool(measured.get("resting")) and at_rest / difference >= 0.5
    return max(_AT_REST if is_at_rest else _MOVING, key=lambda name: terms.get(name, 0))
