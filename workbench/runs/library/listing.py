"""The history as a list: what is found in it by words, and in which order it stands."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isnan
from typing import Any

from workbench.runs.folder import RunFolder
from workbench.runs.label import Label
from workbench.runs.summary import RunSummary


@dataclass(frozen=True)
class Listed:
    """A run of the history."""

    run: RunFolder
    summary: RunSummary
    label: Label

    @property
    def name(self) -> str:
        """The name that somebody gave it, else its id."""
        return self.label.name or self.run.id

    @property
    def tags(self) -> str:
        """As they are shown, and searched for: ``#pirate #lr-2e-4``."""
        return " ".join(f"#{tag}" for tag in self.label.tags)


@dataclass(frozen=True)
class Order:
    """A column of the history to sort by. ``falls``: the greatest or latest first, where nobody asks otherwise."""

    key: Callable[[Listed], Any]
    falls: bool = False


def _number(value: object) -> float | None:
    """What is no number, or has none, stands last."""
    return float(value) if isinstance(value, int | float) and not isnan(value) else None


ORDERS = {
    "state": Order(lambda one: one.summary.state),
    "run": Order(lambda one: one.name.casefold()),
    "steps": Order(lambda one: one.summary.step, falls=True),
    "loss": Order(lambda one: _number(one.summary.loss)),
    "perplexity": Order(lambda one: _number(one.summary.perplexity.get("tuned"))),
    "started": Order(lambda one: one.summary.started or one.run.made, falls=True),
    "model": Order(lambda one: one.summary.model.casefold() or None),
    "tags": Order(lambda one: one.tags.casefold() or None),
}
"""By the title of the column."""


def in_order(runs: Iterable[Listed], column: str, *, turned: bool = False) -> list[Listed]:
    """The runs sorted by a column of :data:`ORDERS`; those that have nothing in it stand last, either way around."""
    order = ORDERS[column]
    keyed = [(order.key(one), one) for one in runs]
    have = [pair for pair in keyed if pair[0] is not None]
    have.sort(key=lambda pair: pair[0], reverse=order.falls != turned)
    return [one for _, one in have] + [one for key, one in keyed if key is None]


def holds(one: Listed, words: str) -> bool:
    """Whether each of the words is in the run's name, id, model, state or tags; a tag is written ``#tag``."""
    summary = one.summary
    text = f"{one.name}\n{one.run.id}\n{summary.model}\n{summary.state}\n{one.tags}".casefold()
    return all(word in text for word in words.casefold().split())
