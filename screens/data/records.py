"""Reads the first records of local sources without the engine, and combines them with the engine's formatted ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from screens.widgets.key_texts import key
from workbench.data.open_source import bundled_names, needs_hub, remote_sources
from workbench.data.sources import Item, load_records
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.data.facts import DataFacts, Example
    from workbench.objectives.objective import RecordKind
    from workbench.recipe.schema import Recipe
    from workbench.recipe.sections.data import DataSection
    from workbench.storage.paths import Home

RECORDS_KEPT = 200

# Counting stops after this; the screen then shows "more than" the count.
_SECONDS_COUNTED = 2.0


RawData = tuple["DataSection", "RecordKind | None"]
"""The data of a recipe, and as what it is read; None for what it looks like."""


def raw_data(recipe: Recipe) -> RawData:
    """The data of a recipe as its raw records are shown."""
    return recipe.data, recipe.objective.spec.shown_as


@dataclass(frozen=True)
class FirstRecords:
    """The first records of a recipe's dataset, and how many there are.

    Attributes:
        format, reason: the recognized format, and why.
        items: the first records; an unusable one has its problem.
        count: records counted; ``complete`` says whether these are all.
        unusable: how many of the counted ones cannot be used for training.
        held_out: how many of the counted ones are held out for evaluation.
    """

    format: str
    reason: str
    items: tuple[Item, ...]
    count: int
    unusable: int
    held_out: int
    complete: bool


def read_first_records(raw: RawData, home: Home) -> Iterator[FirstRecords]:
    """Yield the first records, and then the same with a count of the rest, which may be incomplete. Blocks.

    Raises:
        WorkbenchError: the source is not local, cannot be read, or has an unknown format.
    """
    data, kind = raw
    # A path that does not exist is refused below: there is nothing to download.
    if missing := [name for name in remote_sources(data.source) if needs_hub(name)]:
        raise WorkbenchError(
            f"{missing[0]}: no such file or bundled dataset ({', '.join(bundled_names())}).",
            f"If it is a Hugging Face dataset, press {key('data.fetch')} to download it and count. "
            "Otherwise correct the source.",
            kind="data_elsewhere",
        )
    records = load_records(data, home, kind=kind)
    started = monotonic()
    stream = records.items()
    items = tuple(islice(stream, RECORDS_KEPT))
    count, unusable, held_out = len(items), *_tally(items)
    complete = count < RECORDS_KEPT
    found = FirstRecords(records.format, records.reason, items, count, unusable, held_out, complete)
    yield found
    if complete:
        return
    complete = True
    for item in stream:
        more_unusable, more_held_out = _tally((item,))
        count, unusable, held_out = count + 1, unusable + more_unusable, held_out + more_held_out
        if monotonic() - started > _SECONDS_COUNTED:
            complete = False
            break
    yield replace(found, count=count, unusable=unusable, held_out=held_out, complete=complete)


def shown_records(found: FirstRecords | None, facts: DataFacts | None) -> tuple[tuple[int, Item | Example], ...]:
    """Return the records to show, each with its place in the dataset: formatted training text if it is known, else raw.

    A document becomes several chunks. An unusable record stays raw, with its problem.
    """
    formatted: dict[int, list[Example]] = {}
    for example in facts.examples if facts else ():
        formatted.setdefault(example.index, []).append(example)
    if found is None:
        return tuple((index, example) for index, chunks in formatted.items() for example in chunks)
    return tuple((index, record) for index, item in enumerate(found.items) for record in formatted.get(index, [item]))


def _tally(items: tuple[Item, ...]) -> tuple[int, int]:
    return sum(item.content is None for item in items), sum(item.held_out for item in items)
