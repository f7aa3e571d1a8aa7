"""Runs side by side: in what their recipes differ, and what came of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.runs.summary import RunSummary
from workbench.units import clock, gib, size_in

Rows = list[tuple[str, list[str]]]
"""A label with one cell a run."""

_ABSENT = "–"


@dataclass(frozen=True)
class Figures:
    """What came of a run, as far as it is.

    Attributes:
        best: held-out loss and step of the best evaluation, the base's own left out; None without one.
        held_out: of the newest evaluation.
        seconds: of training, without evaluations, pauses and what was trained in vain.
        adapter_bytes: the file of the adapter that it left.
    """

    summary: RunSummary
    best: tuple[float, int] | None = None
    held_out: float | None = None
    seconds: float = 0.0
    trainable: int | None = None
    adapter_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        summary = self.summary
        return {
            "state": summary.state,
            "model": summary.model,
            "step": summary.step,
            "max_steps": summary.max_steps,
            "loss": summary.loss,
            "best_eval_loss": self.best[0] if self.best else None,
            "best_step": self.best[1] if self.best else None,
            "eval_loss": self.held_out,
            "perplexity": summary.perplexity,
            "tokens": summary.tokens,
            "tokens_per_second": self.tokens_per_second,
            "training_seconds": self.seconds or None,
            "seconds": self.duration,
            "predicted_peak": summary.predicted_allocated,
            "measured_peak": summary.peak_vram or None,
            "trainable_parameters": self.trainable,
            "adapter_bytes": self.adapter_bytes,
        }

    @property
    def tokens_per_second(self) -> float | None:
        """Over the whole training."""
        return self.summary.tokens / self.seconds if self.seconds and self.summary.tokens else None

    @property
    def duration(self) -> float | None:
        """Seconds from duration, all that lay between them; None before it ended."""
        summary = self.summary
        return summary.ended - summary.started if summary.ended and summary.started else None


def adapter_bytes(run: RunFolder) -> int | None:
    """Size of the adapter that a run left; None where it left none."""
    try:
        return (run.adapter / "adapter_model.safetensors").stat().st_size
    except OSError:
        return None


def figure_rows(runs: Sequence[Figures], arrow: str = "→") -> Rows:
    """The figures as text, one row a figure; rows that no run has anything in are left out."""
    rows: Rows = [
        ("state", [one.summary.state for one in runs]),
        ("steps", [_steps(one.summary) for one in runs]),
        ("last loss", [_figure(one.summary.loss) for one in runs]),
        ("best held-out loss", [f"{_figure(one.best[0])} at {one.best[1]}" if one.best else "" for one in runs]),
        ("last held-out loss", [_figure(one.held_out) for one in runs]),
        ("perplexity", [_perplexity(one.summary, arrow) for one in runs]),
        ("tokens", [f"{one.summary.tokens:,}" if one.summary.tokens else "" for one in runs]),
        ("tokens/s", [f"{one.tokens_per_second:,.0f}" if one.tokens_per_second else "" for one in runs]),
        ("training time", [_clock(one.seconds or None) for one in runs]),
        ("duration", [_clock(one.duration) for one in runs]),
        ("peak VRAM predicted", [_gib(one.summary.predicted_allocated) for one in runs]),
        ("peak VRAM measured", [_gib(one.summary.peak_vram) for one in runs]),
        ("trainable parameters", [f"{one.trainable:,}" if one.trainable else "" for one in runs]),
        ("adapter file", [size_in("MB", one.adapter_bytes) if one.adapter_bytes else "" for one in runs]),
    ]
    return [(label, [cell or _ABSENT for cell in cells]) for label, cells in rows if any(cells)]


def difference_rows(recipes: Sequence[Mapping[str, Any] | None]) -> Rows:
    """Where recipes differ: each dotted path with the value of each run.

    Args:
        recipes: as plain data; None for one that cannot be read.
    """
    flat = [_flat(recipe) if recipe is not None else None for recipe in recipes]
    paths = dict.fromkeys(path for one in flat if one is not None for path in one)
    rows: Rows = []
    for path in paths:
        cells = ["?" if one is None else _value(one.get(path)) for one in flat]
        if len({cell for cell, one in zip(cells, flat, strict=True) if one is not None}) > 1:
            rows.append((path, cells))
    return rows


def recipe_of(run: RunFolder) -> dict[str, Any] | None:
    """A run's recipe with what follows from it, a linked ``lora_alpha`` too; None where it cannot be read."""
    try:
        recipe: Recipe = run.recipe_as_run()
    except WorkbenchError:
        return None
    return recipe.model_dump(mode="json")


def letters(count: int) -> list[str]:
    """What runs are told apart by where there is no colour: A, B, C, …"""
    return [chr(ord("A") + number % 26) for number in range(count)]


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            found |= _flat(inner, f"{before}{name}.")
        else:
            found[before + name] = inner
    return found


def _value(value: object) -> str:
    match value:
        case None | "" | [] | {}:
            return _ABSENT
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def _steps(summary: RunSummary) -> str:
    return f"{summary.step}/{summary.max_steps}" if summary.max_steps else str(summary.step or "")


def _figure(value: object) -> str:
    """The journal has a word for a number that is none."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value or "")


def _perplexity(summary: RunSummary, arrow: str) -> str:
    base, tuned = (_figure(summary.perplexity.get(name)) for name in ("base", "tuned"))
    return f"{base or '?'} {arrow} {tuned}" if tuned else base


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else clock(seconds, tenths=True)


def _gib(count: int | None) -> str:
    return gib(count, 2) if count else ""
