"""Adds up where the time of a run's steps went, and its efficiency (padding, MFU), from ``step`` events."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from workbench.runs.events import Step

PARTS = ("data", "forward", "backward", "optimizer", "other")


class StepTimesData(TypedDict):
    """:class:`StepTimes` as JSON data."""

    shares: dict[str, float]
    padding: float | None
    flops: float | None
    mfu: float | None
    hfu: float | None


@dataclass
class StepTimes:
    """Step times summed over events; events without ``parts``, as older versions wrote, are skipped.

    Attributes:
        seconds: total time of the counted steps.
        parts: seconds of each part.
    """

    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _times: dict[str, float] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: Iterable[Step]) -> "StepTimes":
        """Sum over these steps."""
        times = cls()
        for step in steps:
            times.add(step)
        return times

    def add(self, step: Step) -> None:
        """Add a logged point."""
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
        """Each part's share of the time; empty if unknown."""
        whole = sum(self.parts.values())
        return {part: seconds / whole for part, seconds in self.parts.items()} if whole else {}

    @property
    def padding(self) -> float | None:
        """Share of the computed positions that were padding."""
        return self._mean("padding")

    @property
    def flops(self) -> float | None:
        """FLOP/s that the model needed."""
        return self._mean("flops")

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization: ``flops`` as a share of the device's peak; None if the peak is unknown."""
        return self._mean("mfu")

    @property
    def hfu(self) -> float | None:
        """Hardware FLOPs utilization: MFU plus gradient checkpointing's recomputation; None without it."""
        return self._mean("hfu")

    def as_json(self) -> "StepTimesData | None":
        """The shares and means as JSON data; None if no step had times."""
        if not self.shares:
            return None
        return StepTimesData(shares=self.shares, padding=self.padding, flops=self.flops, mfu=self.mfu, hfu=self.hfu)

    def _mean(self, name: str) -> float | None:
        times = self._times.get(name)
        return self._sums[name] / times if times else None
