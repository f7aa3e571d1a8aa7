"""The queue: the running run, the queued runs, and the keys that add, reorder and hold."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from screens.dialogs.questions import YES, Choice, ChoiceDialog
from screens.queue import enqueue
from screens.shell.header import short_name
from screens.shell.run_words import dotted
from screens.widgets.box_screen import BoxScreen
from screens.widgets.glyphs import GLYPHS
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content
from workbench.errors import WorkbenchError
from workbench.planning.queue import ON_REQUEST, Entry, Queue, QueueAction, QueueRequest, QueueState
from workbench.recipe.differences import recipe_differences
from workbench.recipe.text import parse
from workbench.runs.folder import RunFolder, summarise
from workbench.runs.summary import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import ComposeResult

    from screens.workbench import Workbench
    from workbench.storage.paths import Home

_SECONDS = 1.0
_EARLIER_SHOWN = 4


@dataclass(frozen=True)
class _Snapshot:
    """The queue as read from disk, with the state of the run ahead and of earlier entries."""

    queue: QueueState
    ahead: RunState | None
    earlier: tuple[tuple[str, str], ...]


class QueueScreen(BoxScreen[None]):
    """The queue of this home. It is read from its file each second, and changed through the engine."""

    DEFAULT_CSS = """
    QueueScreen > VerticalGroup { width: 100; }
    QueueScreen Paragraph, QueueScreen Static { height: auto; }
    QueueScreen OptionList, QueueScreen OptionList:focus {
        height: auto; max-height: 12; border: none; background: $surface; padding: 0; margin: 1 0;
    }
    QueueScreen #keys, QueueScreen #earlier { color: $text-muted; }
    QueueScreen #held { color: $warning; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", "Add", id="queue.add", tooltip="Add the current recipe to the queue"),
        Binding("w", "sweep", "Sweep", id="queue.sweep", tooltip="Queue several values of a setting"),
        Binding("u,shift+up", "move(-1)", "Up", id="queue.up", tooltip="Move the entry up"),
        Binding("d,shift+down", "move(1)", "Down", id="queue.down", tooltip="Move the entry down"),
        Binding("x,delete", "remove", "Remove", id="queue.remove", tooltip="Remove the entry from the queue"),
        Binding("t", "take", "Load recipe", id="queue.take", tooltip="Load its recipe as the current one"),
        Binding("r", "replace", "Replace", id="queue.replace", tooltip="Replace its recipe with the current one"),
        Binding("h", "hold", "Hold", id="queue.hold", tooltip="Put the queue on hold: no queued run starts"),
        Binding("g", "go", "Resume", id="queue.go", tooltip="Resume the queue"),
        Binding("C", "clear", "Clear", key_display="C", id="queue.clear", tooltip="Remove all entries from the queue"),
        Binding("escape,q", "leave", "Back", id="queue.leave"),
    ]

    def __init__(self, app: Workbench) -> None:
        super().__init__()
        self._workbench = app
        self._snapshot: _Snapshot | None = None
        self._earlier = Paragraph(id="earlier")
        self._current = Paragraph(id="now")
        self._entries = OptionList()
        self._hold = Paragraph(id="held")
        self._hint = Static(id="keys", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Queue"
            yield self._earlier
            yield self._current
            yield self._entries
            yield self._hold
            yield self._hint

    async def on_mount(self) -> None:
        self._entries.focus()
        for paragraph in (self._earlier, self._current, self._hold):
            paragraph.show_or_hide(Content(""))
        await self._read()
        self.set_interval(_SECONDS, self._read)

    # -- what is shown --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            snapshot = await asyncio.to_thread(_read_snapshot, self._workbench.session.home, self._snapshot)
        except WorkbenchError as error:
            self._hold.show_or_hide(plain_content(error, lines=True))
            return
        if self.is_attached:
            self._show(snapshot)

    def _show(self, snapshot: _Snapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        self._current.show_or_hide(self._now(snapshot))
        if snapshot == before:
            return
        queue = snapshot.queue
        options = self._entries
        was = self._entry_at(before, options.highlighted)
        options.clear_options()
        options.add_options(Option(_row(place, *step)) for place, step in enumerate(queue.with_previous, 1))
        ids = [entry.id for entry in queue.waiting]
        if ids:
            at = options.highlighted or 0
            options.highlighted = ids.index(was.id) if was is not None and was.id in ids else min(at, len(ids) - 1)
        options.display = bool(ids)
        self._earlier.show_or_hide(
            Content("\n").join(plain_content(f"{name}  {state}") for name, state in snapshot.earlier)
        )
        self._hold.show_or_hide(plain_content(_held(snapshot), lines=True))
        self._hint.update(_keys(queue))
        self.refresh_bindings()

    def _now(self, snapshot: _Snapshot) -> Content:
        """Return the run that is ahead of the first queued one."""
        session = self._workbench.session
        live = session.status.run if session.status is not None else None
        if live is not None:
            summary = session.summary
            steps = f"step {summary.step}/{summary.max_steps}" if summary and summary.max_steps else ""
            doing = session.status.state if session.status is not None else ""
            return Content.assemble((f"{GLYPHS.dot} ", "$success"), (plain(live), "bold"), f"  {dotted(doing, steps)}")
        if snapshot.queue.ahead:
            return plain_content(f"{Path(snapshot.queue.ahead).name}  {snapshot.ahead or 'removed'}", "bold")
        return Content("" if snapshot.queue.waiting else "The queue is empty.")

    # -- what the user does ---------------------------------------------------------------------------------------

    @staticmethod
    def _entry_at(snapshot: _Snapshot | None, index: int | None) -> Entry | None:
        if snapshot is None or index is None or index >= len(snapshot.queue.waiting):
            return None
        return snapshot.queue.waiting[index]

    @property
    def _selected(self) -> Entry | None:
        return self._entry_at(self._snapshot, self._entries.highlighted)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        queue = self._snapshot.queue if self._snapshot is not None else QueueState()
        match action:
            case "hold":
                return not queue.held
            case "go":
                return bool(queue.held)
            case "move":
                return len(queue.waiting) > 1
            case "remove" | "take" | "replace" | "clear":
                return bool(queue.waiting)
        return True

    def action_add(self) -> None:
        """Add the current recipe to the queue."""
        self._attempt(enqueue.add(self._workbench, self._workbench.session.recipe), asks=True)

    def action_sweep(self) -> None:
        """Queue the current recipe with several values of a setting."""
        self._attempt(enqueue.sweep_current(self._workbench), asks=True)

    def action_move(self, by: int) -> None:
        """Move the selected entry up or down."""
        at = self._entries.highlighted
        if (entry := self._selected) is not None and at is not None:
            self._ask("move", entry, place=max(at + 1 + by, 1))

    def action_remove(self) -> None:
        """Remove the selected entry from the queue."""
        if (entry := self._selected) is not None:
            self._ask("remove", entry)

    def action_take(self) -> None:
        """Load the entry's recipe as the current one."""
        if (entry := self._selected) is not None:
            problems = self._workbench.set_recipe(parse(entry.recipe).as_dict())
            self.notify(
                str(problems[0]) if problems else f"Loaded the recipe of {entry.name}.", markup=False, timeout=3
            )

    def action_replace(self) -> None:
        """Replace the entry's recipe with the current one."""
        if (entry := self._selected) is not None:
            self._attempt(enqueue.replace(self._workbench, entry))

    def action_hold(self) -> None:
        """Put the queue on hold: no queued run starts."""
        self._ask("hold")

    def action_go(self) -> None:
        """Resume the queue."""
        self._ask("go")

    def action_clear(self) -> None:
        """Remove all entries from the queue."""
        count = len(self._snapshot.queue.waiting) if self._snapshot is not None else 0

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._ask("clear")

        text = f"Removes {count} queued run{'' if count == 1 else 's'}. A running run is not affected."
        self.app.push_screen(
            ChoiceDialog("Clear the queue?", text, [Choice(YES, "Remove them", "clear")], is_risky=True), answered
        )

    def action_leave(self) -> None:
        """Close the queue."""
        self.dismiss(None)

    def _ask(self, action: QueueAction, *entries: Entry, **more: Any) -> None:
        request = QueueRequest(action=action, ids=[entry.id for entry in entries], **more)
        self._attempt(self._workbench.session.engine.change_queue(request))

    def _attempt(self, work: Any, *, asks: bool = False) -> None:
        async def done() -> None:
            await work
            if self.is_attached:
                await self._read()

        self._workbench.attempt(done(), asks=asks)


def _read_snapshot(home: Home, before: _Snapshot | None) -> _Snapshot:
    """Read the queue; the state of its runs is read again only if the queue has changed."""
    queue = Queue(home).read()
    if before is not None and before.queue == queue:
        return before
    earlier = [entry for entry in queue.taken if entry != queue.current][-_EARLIER_SHOWN:]
    return _Snapshot(queue, _state(queue.ahead) if queue.ahead else None, tuple(map(_outcome, earlier)))


def _outcome(entry: Entry) -> tuple[str, str]:
    if entry.problem:
        return entry.name, f"could not start: {entry.problem}"
    return Path(entry.run).name, _state(entry.run) or "removed"


def _state(folder: str) -> RunState | None:
    run = RunFolder(Path(folder))
    return summarise(run).state if run.path.is_dir() else None


def _row(place: int, entry: Entry, before: Mapping[str, object] | None) -> Content:
    model = short_name(entry.setting("model", "source"))
    method = entry.setting("quantization", "method")
    rank = f"r {entry.setting('adapter', 'r') or '?'}"
    return Content.assemble(
        (f"{place:>2}  ", "$foreground 70%"),
        (f"{plain(entry.name):<22} ", "bold"),
        plain(dotted(model, method, rank, entry.launch.text if entry.launch else "")),
        (f"  {plain(differing(before, entry.recipe))}", "$foreground 70%"),
    )


def differing(before: Mapping[str, object] | None, after: Mapping[str, object]) -> str:
    """Return what an entry changes from the one before it: ``r 8 → 16, learning_rate 0.0001 → 5e-05``."""
    if before is None:
        return ""
    changed = recipe_differences(before, after).items()
    return ", ".join(f"{path.partition('.')[2]} {old} → {new}" for path, (old, new) in changed)


def _held(snapshot: _Snapshot) -> str:
    queue = snapshot.queue
    if not queue.held:
        return ""
    run = f", or resume {Path(queue.held_for).name} in Runs" if queue.held_for and snapshot.ahead is not None else ""
    why = "" if queue.held == ON_REQUEST else f"{queue.held}\n"
    return f"{why}The queue is on hold. Press g to resume it{run}."


def _keys(queue: QueueState) -> str:
    keys = ["a add", "w sweep"]
    if queue.waiting:
        keys += ["u d move", "x remove", "t load recipe", "r replace"]
    keys += ["g resume" if queue.held else "h hold", "Esc back"]
    # Lines break between two keys, not within one.
    return "   ".join(key.replace(" ", "\N{NO-BREAK SPACE}") for key in keys)
