"""Loss curves of a run for comparison: every logged point, over steps, tokens or seconds of training."""

from array import array
from bisect import bisect_right
from math import isfinite
from typing import Literal

from workbench.runs.events import Step
from workbench.runs.folder import RunFolder
from workbench.runs.library.comparison import RunMetrics, adapter_bytes
from workbench.runs.replay import Replay, finite, held_out_losses

Axis = Literal["step", "tokens", "time"]


class ExactCurve:
    """All points of a training curve, four numbers each: 32 MB for a million steps.

    Attributes:
        steps, tokens, seconds, losses: one entry per point; tokens and seconds count from the start of the run.
    """

    def __init__(self) -> None:
        self.steps, self.tokens, self.seconds, self.losses = (array("d") for _ in range(4))

    def add(self, step: Step) -> None:
        """Append a point."""
        elapsed = self.seconds[-1] if self.seconds else 0.0
        self.steps.append(step.step)
        self.tokens.append(step.tokens or (self.tokens[-1] if self.tokens else 0))
        self.seconds.append(elapsed + step.seconds)
        self.losses.append(finite(step.loss))

    def cut(self, step: int) -> None:
        """Remove the points after this step."""
        keep = bisect_right(self.steps, step)
        for values in (self.steps, self.tokens, self.seconds, self.losses):
            del values[keep:]

    def along(self, axis: Axis) -> "array[float]":
        """The x coordinate of every point on this axis."""
        return {"step": self.steps, "tokens": self.tokens, "time": self.seconds}[axis]


class RunCurves:
    """Reads the journal of a run and gives its metrics and its loss curves."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.exact = ExactCurve()
        self.replay = Replay.of(run.journal, self.exact)
        self.replay.summary.settle()

    def metrics(self) -> RunMetrics:
        """The run's results: losses, speed, memory, size."""
        return metrics_of(self.run, self.replay, self.exact.seconds[-1] if self.exact.seconds else 0.0)

    def curve(self, axis: Axis, max_points: int = 500) -> list[tuple[float, float]]:
        """The training loss as (x, loss), averaged over groups of equal size to at most ``max_points`` points."""
        xs = self.exact.along(axis)
        points = [(x, y) for x, y in zip(xs, self.exact.losses, strict=True) if isfinite(y)]
        size = max(1, -(-len(points) // max_points))
        return [_mean(points[start : start + size]) for start in range(0, len(points), size)]

    def held_out(self, axis: Axis) -> list[tuple[float, float]]:
        """The held-out loss as (x, loss), one point per evaluation."""
        xs = self.exact.along(axis)

        def x_of(step: int) -> float:
            count = bisect_right(self.exact.steps, step)
            return xs[count - 1] if count else 0.0

        losses = held_out_losses(self.replay)
        return [(float(step) if axis == "step" else x_of(step), loss) for step, loss in losses.items()]


def metrics_of(run: RunFolder, replay: Replay, seconds: float) -> RunMetrics:
    """The results of a run: losses, speed, memory, size.

    Args:
        seconds: time spent in training steps.
    """
    best, losses = replay.best, held_out_losses(replay)
    return RunMetrics(
        replay.summary,
        best=(losses[best.step], best.step) if best is not None and best.step in losses else None,
        held_out=next((loss for step, loss in reversed(losses.items()) if step), None),
        seconds=seconds,
        trainable=replay.facts.trainable_parameters,
        adapter_bytes=adapter_bytes(run),
    )


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def as_json(curves: RunCurves, axis: Axis) -> dict[str, object]:
    """Metrics and curves of a run as JSON data."""
    return {
        "id": curves.run.id,
        "name": curves.run.name,
        "tags": list(curves.run.label.tags),
        "figures": curves.metrics().as_json(),
        "curve": {"by": axis, "train": curves.curve(axis), "eval": curves.held_out(axis)},
    }
