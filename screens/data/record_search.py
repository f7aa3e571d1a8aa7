"""Finds the records that contain a text, one after the other, as the user asks for them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, NamedTuple

from workbench.data.sources import Item, load_records
from workbench.engine.client.requests import examples_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from screens.data.records import RawData
    from workbench.data.facts import Example
    from workbench.engine.client.client import EngineClient
    from workbench.recipe.schema import Recipe
    from workbench.storage.paths import Home

# The engine returns no more at once.
_MOST_AT_ONCE = 1000


class Match(NamedTuple):
    """A record and its place in the data; a long document matches in several of its chunks."""

    index: int  # type: ignore[assignment]  # replaces the tuple's own ``index``
    record: Item | Example


class RecordSearch:
    """A search text, the matches found so far, and the selected one.

    Args:
        more: yields the matches in order; the next one is requested only when the user goes to it.
    """

    def __init__(self, text: str, more: AsyncIterator[Match]) -> None:
        self.text = text
        self._more = more
        self._found: list[Match] = []
        self._at = -1
        self._is_complete = False
        self.is_looking = False

    @property
    def match(self) -> Match | None:
        """The selected match."""
        return self._found[self._at] if self._found else None

    @property
    def place(self) -> str:
        """``match 2``, with the total once all are found."""
        if not self._found:
            return "no record matches" if self._is_complete else ""
        return f"match {self._at + 1:,}" + (f" of {len(self._found):,}" if self._is_complete else "")

    async def next(self) -> None:
        """Select the next match; after the last comes the first.

        Raises:
            WorkbenchError: the data cannot be read.
        """
        if self._at + 1 == len(self._found) and not self._is_complete:
            self.is_looking = True
            try:
                match = await anext(self._more, None)
            finally:
                self.is_looking = False
            self._is_complete = match is None
            self._found += [match] if match else []
        self._at = (self._at + 1) % max(len(self._found), 1)

    def previous(self) -> None:
        """Select the previous match; before the first comes the last, once all are found."""
        if self._at > 0 or self._is_complete:
            self._at = (self._at - 1) % max(len(self._found), 1)


async def matches_fed(engine: EngineClient, recipe: Recipe, text: str) -> AsyncIterator[Match]:
    """Yield matches among the records as they are fed, found by the engine."""
    start, skip = 0, 0
    while len(found := await engine.examples(examples_request(recipe, start, skip + 1, text))) > skip:
        example = found[skip]
        yield Match(example.index, example)
        start, skip = example.index, skip + 1 if example.index == start else 1
        if skip == _MOST_AT_ONCE:
            start, skip = start + 1, 0


async def matches_read(raw: RawData, home: Home, text: str) -> AsyncIterator[Match]:
    """Yield matches among raw local records, found in a thread."""
    stop = threading.Event()
    found = _matches(raw, home, text, stop)
    try:
        while match := await asyncio.to_thread(next, found, None):
            yield match
    finally:
        stop.set()


def _matches(raw: RawData, home: Home, text: str, stop: threading.Event) -> Iterator[Match]:
    for index, item in enumerate(load_records(raw[0], home, kind=raw[1]).items()):
        if stop.is_set():
            return
        if item.contains(text):
            yield Match(index, item)
