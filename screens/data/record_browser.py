"""The records of the recipe, one at a time: in order, the longest ones, or the matches of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input

from screens.data.record_search import Match, RecordSearch, matches_fed, matches_read
from screens.data.record_view import MASKED, TRAINED, RecordView
from screens.data.records import FirstRecords, raw_data, shown_records
from screens.shell.header import short_name
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import keyed
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain, plain_content
from workbench.data.facts import DataFacts, Example
from workbench.engine.client.requests import examples_request
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from screens.data.records import RawData
    from screens.session import Session
    from workbench.data.sources import Item


UNRECOGNIZED = ("data_format", "data_preference")
"""Errors after which a mapping by hand helps."""
MAP_COLUMNS = "Press {data.map} to map the columns by hand."


class RecordBrowser(Vertical):
    """One record with its facts, and a search field.

    Args:
        session: returns the session, for the recipe and for the engine, which has the records after the first ones.
        moved: called when other keys may be available than before.

    Attributes:
        data: the data section whose records were read last.
    """

    def __init__(self, session: Callable[[], Session], moved: Callable[[], None], **names: Any) -> None:
        super().__init__(**names)
        self._session = session
        self._moved = moved
        self.data: RawData | None = None
        self._look: FirstRecords | None = None
        self._at = 0
        # A record that is not among the first ones.
        self._alone: Match | None = None
        self._search: RecordSearch | None = None
        self._field = Input(placeholder="Search text; Enter searches, Esc cancels", compact=True)
        self._found = Paragraph(id="found")
        self._search_box = Vertical(self._field, self._found, id="search")
        self._facts = Paragraph(id="facts")
        self._view = RecordView()

    def compose(self) -> ComposeResult:
        self.border_title = "raw records"
        yield self._search_box
        yield self._facts
        yield self._view

    # -- the records ----------------------------------------------------------------------------------------------

    @property
    def view(self) -> RecordView:
        """The record, which takes the focus."""
        return self._view

    @property
    def is_searching(self) -> bool:
        """Whether the search is open."""
        return self.has_class("-searching")

    @property
    def can_turn(self) -> bool:
        """Whether there is another record to go to."""
        return len(self._entries) > 1 or self._search is not None

    def look_at(self, data: RawData, found: FirstRecords | WorkbenchError) -> None:
        """Show the first record of other data, or why there is none; of the same data, what was read since."""
        if data != self.data:
            self._at, self._alone = 0, None
        self.data = data
        self._look = found if isinstance(found, FirstRecords) else None
        self.refresh_record()
        if isinstance(found, WorkbenchError) and not self._entries:
            offer = f"\n\n{keyed(MAP_COLUMNS)}" if found.kind in UNRECOGNIZED else ""
            self._show_instead(found.message, f"{found.cure}{offer}")

    def forget(self) -> None:
        """Drop what was found for an earlier recipe."""
        self._alone = None
        self.end_search()

    def refresh_record(self) -> None:
        """Show the selected record, as it is fed to training once that is known."""
        found = self._entries
        self._moved()
        if found:
            place, record = self._alone or found[min(self._at, len(found) - 1)]
            fed = isinstance(record, Example)
            set_title(self, "formatted training text" if fed else "raw records")
            self._facts.show(_facts_text(place, record, self._look, self._data_facts))
            self._view.show(record, self._search.text if self._search else "")
        elif self._look is not None:
            self._show_instead("The dataset has no records.", "Choose another source.")

    @property
    def _data_facts(self) -> DataFacts | None:
        return self._session().facts_of(self._session().recipe)

    @property
    def _entries(self) -> tuple[tuple[int, Item | Example], ...]:
        fresh = self.data == raw_data(self._session().recipe)
        return shown_records(self._look if fresh else None, self._data_facts)

    def _show_instead(self, text: str, cure: str) -> None:
        self._facts.show(Content(""))
        self._view.say(text, cure)

    # -- going through them ---------------------------------------------------------------------------------------

    def turn(self, by: int) -> None:
        """Show the next or the previous record, or match of the search; after the last comes the first."""
        if self._search is not None:
            if not self._search.is_looking:
                self._go_on(self._search, by)
        elif self._entries:
            self._at = (self._at + (by if self._alone is None else 0)) % len(self._entries)
            self._alone = None
            self.refresh_record()

    async def go_to(self, index: int) -> None:
        """Show a record, given its place in the data.

        Raises:
            WorkbenchError: the engine cannot read it.
        """
        self.end_search()
        at = next((at for at, (place, _) in enumerate(self._entries) if place == index), None)
        if at is not None:
            self._at, self._alone = at, None
        else:
            session = self._session()
            found = await session.engine.examples(examples_request(session.recipe, index))
            self._alone = Match(found[0].index, found[0]) if found else None
        self.refresh_record()

    # -- search ---------------------------------------------------------------------------------------------------

    def open_search(self) -> None:
        """Let the user type what to search for."""
        self.add_class("-searching")
        self._field.focus()
        self._moved()

    def end_search(self) -> None:
        """Close the search, running or not; the selected record stays."""
        if not self.is_searching:
            return
        self.workers.cancel_group(self, "search")
        self._search = None
        if self._search_box.has_focus_within:
            self._view.focus()
        self.remove_class("-searching")
        self._say("")
        self.refresh_record()

    @on(Input.Submitted)
    def _asked(self, event: Input.Submitted) -> None:
        event.stop()
        if not event.value:
            return
        session = self._session()
        if self._data_facts is not None:
            more = matches_fed(session.engine, session.recipe, event.value)
        else:
            more = matches_read(raw_data(session.recipe), session.home, event.value)
        self._search = RecordSearch(event.value, more)
        self._view.focus()
        self._go_on(self._search, 1)

    def _go_on(self, search: RecordSearch, by: int) -> None:
        self._say("searching, Esc cancels")
        self.run_worker(self._find(search, by), group="search", exclusive=True)

    async def _find(self, search: RecordSearch, by: int) -> None:
        try:
            if by > 0:
                await search.next()
            else:
                search.previous()
        except WorkbenchError as error:
            self._say(f"{error.message} {error.cure}")
            return
        if search is not self._search:
            return
        if search.match is not None:
            self._take(search.match)
        self._say(f"{search.place}, n/p next/previous" if search.match else search.place)
        self.refresh_record()

    def _take(self, match: Match) -> None:
        """Select a match; if it is among the first records, n and p continue from it after the search."""
        at = next((at for at, entry in enumerate(self._entries) if entry == match), None)
        self._at, self._alone = (self._at, match) if at is None else (at, None)

    def _say(self, text: str) -> None:
        self._found.show(plain_content(text, "$foreground 70%"))


def _facts_text(place: int, record: Item | Example, found: FirstRecords | None, facts: DataFacts | None) -> Content:
    """Return the place of a record, the facts of the dataset, and where the record comes from."""
    count = f"more than {place + 1:,}"
    parts: list[str] = []
    reason = ""
    if facts is not None:
        parts, reason = [f"format {facts.format}", f"template {facts.template}"], facts.reason
    if facts is not None and facts.exact:
        count = f"{facts.records + facts.skipped + facts.lost_reply:,}"
    if found is not None:
        count = f"{found.count:,}" if found.complete else f"more than {found.count:,}"
        parts = parts or [f"format {found.format}", f"{found.held_out:,} held out"]
        parts += [f"{found.unusable:,} invalid"] if found.unusable else []
        reason = found.reason
    if isinstance(record, Example):
        parts.append(f"{record.tokens:,} tokens")
    key = Content.assemble(("trained", TRAINED), ("  masked", MASKED)) if isinstance(record, Example) else Content("")
    return Content.assemble(
        (f"record {place + 1:,}", "bold $accent"),
        (f" of {count}  ", ""),
        ("held out  " if record.held_out else "", "$warning"),
        key,
        (f"\n{_dotted(*parts)}", ""),
        (f"\n{plain(reason)}", ""),
        (f"\n{plain(short_name(record.where))}\n", ""),
    )


def _dotted(*parts: str) -> str:
    return plain(f" {GLYPHS.separator} ".join(parts))
