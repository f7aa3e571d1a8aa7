"""How a run went, point by point, from its journal: loss over steps, tokens or seconds of training."""

from array import array
from bisect import bisect_right
from math import isfinite
from typing import Any, Literal

from workbench.runs.folder import RunFolder, RunSummary
from workbench.runs.journal import Event, each_event
from workbench.runs.library.comparison import Figures, adapter_bytes

Axis = Literal["step", "tokens", "time"]
AXES: tuple[Axis, ...] = ("step", "tokens", "time")


class Course:
    """One run as its journal tells it. What was trained again after a resume counts as it was the last time.

    It holds four numbers a point, 32 MB for a million steps.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.summary = RunSummary(run.id)
        self.steps, self.tokens, self.seconds, self.losses = (array("d") for _ in range(4))
        self.evaluations: dict[int, float] = {}
        self._bests: list[int] = []
        self._trainable: int | None = None

    @classmethod
    def of(cls, run: RunFolder) -> "Course":
        """Read the journal to its end, a block at a time."""
        course = cls(run)
        for event in each_event(run.journal):
            course.add(event)
        course.summary.settle()
        return course

    def add(self, event: Event) -> None:
        """Take one event into account."""
        self.summary.add(event)
        match event["event"]:
            case "run_resumed":
                self._go_back_to(event.get("step", 0))
            case "phase":
                self._trainable = event.get("trainable_parameters", self._trainable)
            case "step":
                self._stepped(event)
            case "eval" if isinstance(loss := event.get("loss"), int | float):
                self.evaluations[event.get("step", 0)] = loss
                if event.get("best"):
                    self._bests.append(event.get("step", 0))

    def _stepped(self, event: Event) -> None:
        tokens, seconds, loss = (event.get(name) for name in ("tokens", "seconds", "loss"))
        before = self.seconds[-1] if self.seconds else 0.0
        self.steps.append(event["step"])
        self.tokens.append(tokens if isinstance(tokens, int | float) else self.tokens[-1] if self.tokens else 0)
        self.seconds.append(before + (seconds if isinstance(seconds, int | float) else 0))
        self.losses.append(loss if isinstance(loss, int | float) else float("nan"))

    def _go_back_to(self, step: int) -> None:
        keep = bisect_right(self.steps, step)
        for values in (self.steps, self.tokens, self.seconds, self.losses):
            del values[keep:]
        self.evaluations = {at: loss for at, loss in self.evaluations.items() if at <= step}
        self._bests = [at for at in self._bests if at <= step]

    def figures(self) -> Figures:
        """What came of it."""
        best = self._bests[-1] if self._bests else None
        return Figures(
            self.summary,
            best=(self.evaluations[best], best) if best is not None else None,
            held_out=next((loss for step, loss in reversed(self.evaluations.items()) if step), None),
            seconds=self.seconds[-1] if self.seconds else 0.0,
            trainable=self._trainable,
            adapter_bytes=adapter_bytes(self.run),
        )

    def curve(self, axis: Axis, most: int = 500) -> list[tuple[float, float]]:
        """The training loss, as the means of at most so many parts of equally many points."""
        xs = self._along(axis)
        points = [(x, y) for x, y in zip(xs, self.losses, strict=True) if isfinite(y)]
        size = max(1, -(-len(points) // most))
        return [_mean(points[start : start + size]) for start in range(0, len(points), size)]

    def held_out(self, axis: Axis) -> list[tuple[float, float]]:
        """The held-out loss at each evaluation."""
        xs = self._along(axis)

        def at(step: int) -> float:
            before = bisect_right(self.steps, step)
            return xs[before - 1] if before else 0.0

        return [(float(step) if axis == "step" else at(step), loss) for step, loss in self.evaluations.items()]

    def _along(self, axis: Axis) -> "array[float]":
        return {"step": self.steps, "tokens": self.tokens, "time": self.seconds}[axis]


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def as_json(course: Course, axis: Axis) -> dict[str, Any]:
    """Figures and curves as plain data."""
    return {
        "id": course.run.id,
        "name": course.run.name,
        "tags": list(course.run.label.tags),
        "figures": course.figures().as_json(),
        "curve": {"by": axis, "train": course.curve(axis), "eval": course.held_out(axis)},
    }
