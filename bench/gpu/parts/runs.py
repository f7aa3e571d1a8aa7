"""Runs in this process, for parts that compare them."""

import hashlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.gpu.part import Work
from tests.journals import read_events
from workbench.engine.training.training import Training
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder, create_run

# The base that the last run left, for the next one that asks for the same.
_base: list[Any] = []


class Done(NamedTuple):
    """A run that has ended.

    Attributes:
        error: the kind of the error that ended it, and its message; empty if none did.
    """

    run: RunFolder
    events: list[Any]
    error: str

    @property
    def losses(self) -> list[float]:
        """By step; a step that was trained again counts as the last time."""
        return list({event["step"]: event["loss"] for event in self._named("step")}.values())

    @property
    def measured(self) -> dict[str, int]:
        """The peaks of the run in bytes; empty without a GPU."""
        return self.events[-1].get("measured") or {}

    @property
    def digest(self) -> str:
        return adapter_digest(self.run)

    @property
    def preparing(self) -> dict[str, Any]:
        """How the run trains, as its journal says."""
        return next(dict(event) for event in self._named("phase") if event.get("loss_check") or event.get("predicted"))

    def warnings(self, kind: str) -> list[dict[str, Any]]:
        return [dict(event) for event in self._named("warning") if event.get("kind") == kind]

    @property
    def told(self) -> dict[str, Any]:
        """What a part notes of it."""
        steps, preparing = self._named("step"), self.preparing
        keys = ("padding_free", "padded_because", "loss_check", "kernels", "compute_dtype", "predicted", "chosen")
        return {
            "losses": self.losses,
            "step_seconds": statistics.median(step["seconds"] for step in steps[1:]) if len(steps) > 1 else None,
            "parts": {name: round(sum(step["parts"][name] for step in steps), 4) for name in steps[-1]["parts"]},
            "mfu": steps[-1].get("mfu"),
            "vram": steps[-1].get("vram"),
            "measured": self.measured,
            "prepared": {key: preparing[key] for key in keys if preparing.get(key) is not None},
            "warnings": [dict(event)["message"] for event in self._named("warning")],
        }

    def _named(self, name: str) -> list[Any]:
        return [event for event in self.events if event["event"] == name]


def trained(work: Work, changes: dict[str, Any] | None = None, *, must_finish: bool = True) -> Done:
    """Train a run of the part's recipe with these changes, in this process."""
    return trained_recipe(work, work.recipe(changes), must_finish=must_finish)


def trained_recipe(work: Work, recipe: Recipe, *, must_finish: bool = True) -> Done:
    """As :func:`trained`, for a whole recipe."""
    from workbench.engine.model.hardware import free_cached_memory

    run = create_run(work.home, recipe)
    training = Training(work.home, run, recipe, _base.pop() if _base else None)
    training.run()
    error = training.error
    if training.base is not None:
        _base.append(training.base)
    del training
    free_cached_memory()
    if must_finish and error is not None:
        raise error
    return Done(run, read_events(run.journal), "" if error is None else f"{error.kind}: {error.message}")


def adapter_digest(run: RunFolder) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def largest_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of two loss curves, step by step."""
    return max(abs(one - other) / abs(other) for one, other in zip(ours, theirs, strict=True))
