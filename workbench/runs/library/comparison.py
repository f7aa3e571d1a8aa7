"""Compares runs side by side: where their recipes differ, and their results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import TypedDict

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.runs.events import Number
from workbench.runs.folder import RunFolder
from workbench.runs.summary import RunState, RunSummary
from workbench.units import clock, gib, size_in

Rows = list[tuple[str, list[str]]]
"""Table rows: a label, and one cell per run."""

_ABSENT = "–"


class RunMetricsData(TypedDict):
    """:class:`RunMetrics` as JSON data."""

    state: RunState
    model: str
    step: int
    max_steps: int
    loss: Number
    best_eval_loss: float | None
    best_step: int | None
    eval_loss: float | None
    perplexity: dict[str, Number]
    tokens: int
    tokens_per_second: float | None
    training_seconds: float | None
    seconds: float | None
    predicted_peak: int | None
    measured_peak: int | None
    trainable_parameters: int | None
    adapter_bytes: int | None


@dataclass(frozen=True)
class RunMetrics:
    """The results of a run so far.

    Attributes:
        best: held-out loss and step of the best evaluation, not counting the base model's; None without one.
        held_out: held-out loss of the newest evaluation.
        seconds: training time, without evaluations, pauses and steps that a resume discarded.
        trainable: trainable parameters.
        adapter_bytes: size of the saved adapter's weights.
    """

    summary: RunSummary
    best: tuple[float, int] | None = None
    held_out: float | None = None
    seconds: float = 0.0
    trainable: int | None = None
    adapter_bytes: int | None = None

    def as_json(self) -> RunMetricsData:
        """The metrics as JSON data."""
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
        """Mean over the whole training."""
        return self.summary.tokens / self.seconds if self.seconds and self.summary.tokens else None

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, without pauses and interruptions; None before the end."""
        return self.summary.seconds


def adapter_bytes(run: RunFolder) -> int | None:
    """Size of a run's saved adapter weights in bytes; None without one."""
    try:
        return (run.adapter / "adapter_model.safetensors").stat().st_size
    except OSError:
        return None


def metric_rows(runs: Sequence[RunMetrics], arrow: str = "→") -> Rows:
    """The metrics as text, one row per metric; rows that are empty for all runs are left out."""
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


def best_metrics(runs: Sequence[RunMetrics]) -> dict[str, set[int]]:
    """Which runs have the best value of a metric, by the label of its row; left out where all runs have the same.

    Times have none: a run that ended early would have the best.
    """
    values: dict[str, tuple[list[float | None], bool]] = {
        "last loss": ([_number(one.summary.loss) for one in runs], False),
        "best held-out loss": ([one.best[0] if one.best else None for one in runs], False),
        "last held-out loss": ([one.held_out for one in runs], False),
        "perplexity": ([_number(one.summary.perplexity.get("tuned")) for one in runs], False),
        "tokens/s": ([one.tokens_per_second for one in runs], True),
        "peak VRAM measured": ([one.summary.peak_vram or None for one in runs], False),
    }
    found = {}
    for label, (numbers, highest) in values.items():
        known = [number for number in numbers if number is not None]
        if len(set(known)) > 1:
            best = max(known) if highest else min(known)
            found[label] = {index for index, number in enumerate(numbers) if number == best}
    return found


def difference_rows(recipes: Sequence[Mapping[str, object] | None]) -> Rows:
    """The settings in which recipes differ: each dotted key with the value in each run.

    Args:
        recipes: as JSON data; None for one that cannot be read.
    """
    flat = [_flat(recipe) if recipe is not None else None for recipe in recipes]
    paths = dict.fromkeys(path for one in flat if one is not None for path in one)
    rows: Rows = []
    for path in paths:
        cells = ["?" if one is None else _value(one.get(path)) for one in flat]
        if len({cell for cell, one in zip(cells, flat, strict=True) if one is not None}) > 1:
            rows.append((path, cells))
    return rows


def recipe_of(run: RunFolder) -> dict[str, object] | None:
    """A run's recipe with all defaults and derived values such as ``lora_alpha``; None if it cannot be read."""
    try:
        recipe: Recipe = run.recipe_as_run()
    except WorkbenchError:
        return None
    return recipe.model_dump(mode="json")


def letters(count: int) -> list[str]:
    """Letters that identify runs where there is no color: A, B, C, …"""
    return [chr(ord("A") + number % 26) for number in range(count)]


def _flat(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    by_path: dict[str, object] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            by_path |= _flat(inner, f"{prefix}{name}.")
        else:
            by_path[prefix + name] = inner
    return by_path


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
    """A number with four digits; the journal writes NaN and infinities as text."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value or "")


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _perplexity(summary: RunSummary, arrow: str) -> str:
    base, tuned = (_figure(summary.perplexity.get(name)) for name in ("base", "tuned"))
    return f"{base or '?'} {arrow} {tuned}" if tuned else base


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else clock(seconds, tenths=True)


def _gib(count: int | None) -> str:
    return gib(count, 2) if count else ""
