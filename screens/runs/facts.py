"""The metrics and facts of a run, as text."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from screens.charts.scale import short_number
from screens.shell import run_words
from screens.shell.header import short_name
from screens.widgets.facts import Fact
from screens.widgets.glyphs import GLYPHS
from workbench.runs.events import memory_bytes
from workbench.runs.library.calibration import Comparison
from workbench.runs.library.listing import targets_text
from workbench.units import clock, gib, loss_text, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.runs.live_run import ChartReplay
    from workbench.runs.summary import RunSummary


def loss(value: object) -> str:
    """A loss with four digits; one that is not finite as the journal has it, such as "nan"."""
    return f"{value:.4g}" if isinstance(value, int | float) else str(value or "")


def steps(summary: RunSummary, room: int) -> str:
    """Steps made and planned, ``120/200``. A percentage if that is wider than ``room``: no number may be cut."""
    if not summary.max_steps:
        return str(summary.step or "")
    text = f"{summary.step}/{summary.max_steps}"
    if len(text) <= room:
        return text
    return str(summary.step) if summary.step == summary.max_steps else f"{summary.step * 100 // summary.max_steps} %"


def perplexity(summary: RunSummary) -> str:
    """Held-out perplexity of the base, and of the adapter."""
    base, tuned = (summary.perplexity.get(name) for name in ("base", "tuned"))
    arrow = GLYPHS.arrow
    figures = [f"{value:.4g}" if isinstance(value, int | float) else "" for value in (base, tuned)]
    return f" {arrow} ".join(figures) if figures[1] else figures[0]


def column_text(summary: RunSummary, column: str) -> str:
    """The text of a run in a column of the history, by the column's name; empty if it is not known."""
    return _COLUMN_TEXTS[column](summary)


def _started(summary: RunSummary) -> str:
    return datetime.fromtimestamp(summary.started).strftime("%m-%d %H:%M") if summary.started else ""


def _rate(summary: RunSummary) -> str:
    rate = summary.settings.get("training.learning_rate")
    return short_number(rate) if isinstance(rate, int | float) else ""


_COLUMN_TEXTS: Mapping[str, Callable[[RunSummary], str]] = {
    "steps": lambda one: steps(one, room=8),
    "loss": lambda one: loss(one.loss),
    "best loss": lambda one: loss_text(one.best_loss) if one.best_loss is not None else "",
    "perplexity": perplexity,
    "started": _started,
    "duration": lambda one: clock(one.seconds) if one.seconds is not None else "",
    "model": lambda one: short_name(one.model),
    "r": lambda one: str(one.settings.get("adapter.r") or ""),
    "lr": _rate,
    "targets": targets_text,
    "data": lambda one: short_name(str(one.settings.get("data.source") or "")),
    "tok/s": lambda one: short(one.tokens_per_second) if one.tokens_per_second else "",
    "peak": lambda one: gib(one.peak_vram, 1) if one.peak_vram else "",
}


def _predicted(summary: RunSummary) -> tuple[str, str]:
    """The predicted peak with its error, and the tone of it; nothing where no peak was measured."""
    compared = Comparison.of(summary)
    if compared is None:
        allocated = summary.predicted_allocated
        return (gib(allocated) if allocated and summary.peak_vram else ""), ""
    suspect = f" {GLYPHS.separator} suspect: {compared.suspect.replace('_', ' ')}" if compared.suspect else ""
    return f"{gib(compared.predicted)} ({compared.error:+.1%}){suspect}", "warn" if suspect else ""


def facts(run: ChartReplay) -> list[Fact]:
    """The facts shown on a run's page."""
    summary = run.summary
    seconds = summary.seconds
    why = summary.reason if summary.state not in ("running", "finished") else ""
    tone = {"finished": "good", "failed": "bad", "interrupted": "warn"}.get(summary.state, "")
    versions = run.started.versions
    host_peak = memory_bytes(run.step.host, "peak") if run.step is not None else 0
    kept = run.kept_step
    adapter = run.ended.adapter if run.ended is not None else None
    return [
        Fact("state", "" if summary.is_state_unknown else f"{summary.state}{': ' if why else ''}{why}", tone),
        Fact("journal", run_words.reading(run) if run.is_partial else ""),
        Fact("suggestion", summary.cure),
        Fact("steps", f"{summary.step}/{summary.max_steps}" if summary.max_steps else str(summary.step)),
        Fact("perplexity", perplexity(summary)),
        Fact("preference", f"{summary.preference:.0%} of held-out pairs" if summary.preference is not None else ""),
        Fact("accuracy", f"{summary.accuracy:.0%} of held-out records" if isinstance(summary.accuracy, float) else ""),
        Fact("best", f"{loss(run.best.loss)} at step {run.best.step}" if run.best else ""),
        Fact("adapter", f"from step {kept}" if kept is not None and adapter else ""),
        Fact("duration", clock(seconds) if seconds is not None else ""),
        Fact("tokens", f"{short(summary.tokens)}" if summary.tokens else ""),
        Fact("peak VRAM", gib(summary.peak_vram) if summary.peak_vram else ""),
        Fact("predicted", *_predicted(summary)),
        Fact("peak memory", gib(host_peak) if host_peak and not summary.peak_vram else ""),
        Fact("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        Fact("folder", f"{run.run.path.parent.name}/{run.run.path.name}"),
    ]
