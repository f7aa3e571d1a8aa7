"""Follows the phases of a run before its first step, as a checklist: what took how long, and what is next."""

from dataclasses import dataclass, field, replace
from typing import Literal

from workbench.runs.events import Phase

_EXPECTED = ("loading", "tokenizing", "preparing", "base evaluation", "training")


@dataclass(frozen=True)
class Stage:
    """A part of a start.

    Attributes:
        seconds: how long it has taken; parts that were interrupted by another one are added up.
        fraction: progress of the running one, 0 to 1; None if unknown. detail: what it is doing.
    """

    name: str
    state: Literal["done", "running", "waiting"] = "waiting"
    seconds: float = 0.0
    fraction: float | None = None
    detail: str = ""


@dataclass
class Startup:
    """The stages from a run's start or resume to its first step."""

    _seen: dict[str, Stage] = field(default_factory=dict)
    _current: str = ""
    _since: float = 0.0

    def add(self, phase: Phase) -> None:
        """Fold the next phase."""
        name = self._name_of(phase)
        if name != self._current:
            self._close(phase.time)
            self._current, self._since = name, phase.time
        before = self._seen.get(name, Stage(name))
        self._seen[name] = replace(before, state="running", fraction=phase.fraction, detail=phase.detail)

    def stages(self, *, evaluates: bool) -> list[Stage]:
        """The stages in order, those to come included.

        Args:
            evaluates: whether the base is evaluated before the first step.
        """
        expected = [name for name in _EXPECTED if evaluates or name != "base evaluation"]
        reached = max((expected.index(name) for name in self._seen if name in expected), default=-1)
        # A resumed run, for one, does not evaluate its base again: what was passed over is left out.
        to_come = [Stage(name) for name in expected[reached + 1 :] if name not in self._seen]
        return [*self._seen.values(), *to_come]

    def _name_of(self, phase: Phase) -> str:
        match phase.phase:
            case "evaluating":
                return "base evaluation"
            case "loading" if "tokenizing" in self._seen:
                return "preparing"  # the trainer is imported and the adapter attached after the records are ready
        return phase.phase

    def _close(self, time: float) -> None:
        if (stage := self._seen.get(self._current)) is not None:
            seconds = stage.seconds + max(0.0, time - self._since)
            self._seen[self._current] = replace(stage, state="done", seconds=seconds, fraction=None, detail="")
