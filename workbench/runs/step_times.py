"""Where the time of a run's steps went, and how much of it was of use: added up from ``step`` events."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from workbench.runs.events import Step

PARTS = ("data", "forward", "backward", "optimizer", "other")


@dataclass
class StepTimes:
    """Sums over events; one that does not tell where its time went, as in journals of old, is passed over.

    Attributes:
        seconds: of the steps that do tell.
        parts: seconds of each part.
    """

    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _times: dict[str, float] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: Iterable[Step]) -> "StepTimes":
        times = cls()
        for step in steps:
            times.add(step)
        return times

    def add(self, step: Step) -> None:
        """Add a point of the curve."""
        parts, seconds = step.parts, step.seconds
        if not parts or not seconds:
            return
        self.seconds += seconds
        for part in PARTS:
            self.parts[part] += parts.get(part) or 0.0
        for name in ("padding", "flops", "mfu", "hfu"):
            if (value := getattr(step, name)) is not None:
                self._times[name] = self._times.get(name, 0.0) + seconds
                self._sums[name] = self._sums.get(name, 0.0) + seconds * value

    @property
    def shares(self) -> dict[str, float]:
        """Each part's share of the time; empty where none is told."""
        whole = sum(self.parts.values())
        return {part: seconds / whole for part, seconds in self.parts.items()} if whole else {}

    @property
    def padding(self) -> float | None:
        """Share of the computed places that held no token."""
        return self._mean("padding")

    @property
    def flops(self) -> float | None:
        """FLOPs a second that the model needed."""
        return self._mean("flops")

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: ``flops`` as a share of the device's peak; None where that is not known."""
        return self._mean("mfu")

    @property
    def hfu(self) -> float | None:
        """The same with what checkpointing computes again; None where nothing is."""
        return self._mean("hfu")

    def as_json(self) -> dict[str, Any] | None:
        """The shares and means as plain data; None where nothing is told."""
        if not self.shares:
            return None
        means = {name: self._mean(name) for name in ("padding", "flops", "mfu", "hfu")}
        return {"shares": self.shares, **means}

    def _mean(self, name: str) -> float | None:
        times = self._times.get(name)
        return self._sums[name] / times if times else None
