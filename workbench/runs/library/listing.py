"""Sorts and searches the list of runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isnan

from workbench.runs.folder import RunFolder
from workbench.runs.label import Label
from workbench.runs.summary import RunSummary


@dataclass(frozen=True)
class ListedRun:
    """A run in the list of runs."""

    run: RunFolder
    summary: RunSummary
    label: Label

    @property
    def name(self) -> str:
        """The name that the user gave it, else its id."""
        return self.label.name or self.run.id

    @property
    def tags(self) -> str:
        """The tags as shown and searched: ``#pirate #lr-2e-4``."""
        return " ".join(f"#{tag}" for tag in self.label.tags)


SortKey = str | float | None
"""A sort key; all keys of a column are of one type, and None sorts last."""


@dataclass(frozen=True)
class Order:
    """How to sort by a column. ``descending``: the largest or latest first unless reversed."""

    key: Callable[[ListedRun], SortKey]
    descending: bool = False


def _number(value: object) -> float | None:
    """A number to sort by; None for a missing value, NaN or text."""
    return float(value) if isinstance(value, int | float) and not isnan(value) else None


ORDERS = {
    "state": Order(lambda one: one.summary.state),
    "run": Order(lambda one: one.name.casefold()),
    "steps": Order(lambda one: one.summary.step, descending=True),
    "loss": Order(lambda one: _number(one.summary.loss)),
    "perplexity": Order(lambda one: _number(one.summary.perplexity.get("tuned"))),
    "started": Order(lambda one: one.summary.started or one.run.made, descending=True),
    "model": Order(lambda one: one.summary.model.casefold() or None),
    "tags": Order(lambda one: one.tags.casefold() or None),
    "r": Order(lambda one: _number(one.summary.settings.get("adapter.r")), descending=True),
    "lr": Order(lambda one: _number(one.summary.settings.get("training.learning_rate")), descending=True),
    "targets": Order(lambda one: targets_text(one.summary).casefold() or None),
    "data": Order(lambda one: str(one.summary.settings.get("data.source") or "").casefold() or None),
    "best loss": Order(lambda one: one.summary.best_loss),
    "tok/s": Order(lambda one: one.summary.tokens_per_second, descending=True),
    "peak": Order(lambda one: one.summary.peak_vram or None, descending=True),
    "duration": Order(lambda one: one.summary.seconds, descending=True),
}
"""How to sort by each column, by the column's title."""


def targets_text(summary: RunSummary) -> str:
    """The targets of a run's adapter in a few words: ``all-linear``, ``q,v``; empty if unknown."""
    targets = summary.settings.get("adapter.target_modules")
    if isinstance(targets, list | tuple):
        return ",".join(str(name).removesuffix("_proj") for name in targets)
    return str(targets or "")


def sort_runs(runs: Iterable[ListedRun], column: str, *, reverse: bool = False) -> list[ListedRun]:
    """Sort runs by a column of :data:`ORDERS`; runs without a value in it come last, also when reversed."""
    order = ORDERS[column]
    keyed = [(order.key(run), run) for run in runs]
    texts = [(key, run) for key, run in keyed if isinstance(key, str)]
    numbers = [(key, run) for key, run in keyed if isinstance(key, int | float)]
    descending = order.descending != reverse
    texts.sort(key=lambda pair: pair[0], reverse=descending)
    numbers.sort(key=lambda pair: pair[0], reverse=descending)
    return [run for _, run in (*texts, *numbers)] + [run for key, run in keyed if key is None]


def matches(run: ListedRun, words: str) -> bool:
    """Whether each of the words is in the run's name, id, model, state or tags; a tag is written ``#tag``."""
    summary = run.summary
    text = f"{run.name}\n{run.run.id}\n{summary.model}\n{summary.state}\n{run.tags}".casefold()
    return all(word in text for word in words.casefold().split())
