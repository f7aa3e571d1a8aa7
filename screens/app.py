"""The app: seven tabs over one recipe, one engine and at most one live run."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Footer
from textual.worker import WorkerFailed

from screens.messages import JournalGrew, RecipeChanged, RunsRenamed, SampleTaken, SkeletonChanged, StatusChanged
from screens.session import Engine, Session
from screens.shell.engine_link import HomeEngine
from screens.shell.header import HeaderBar
from screens.shell.model_tree import tree_of
from screens.shell.run_bar import RunBar, waiting_words
from screens.shell.tab_strip import TabStrip
from screens.shell.watch import Watch
from screens.tabs import TABS
from screens.theme import THEMES
from screens.widgets.glyphs import unicode_terminal
from screens.widgets.pane import Pane
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual.await_complete import AwaitComplete
    from textual.command import Provider
    from textual.message import Message
    from textual.worker import Worker

    from workbench.engine.client.protocol import EngineStatus
    from workbench.errors import Problem
    from workbench.models.skeleton import Skeleton
    from workbench.storage.paths import Home

SAVE_SECONDS = 2.0
LEAVE_SECONDS = 3.0
ASK_SECONDS = 1.0


def _palette() -> type[Provider]:
    from screens.palette import WorkbenchCommands

    return WorkbenchCommands


class WorkbenchApp(App[None]):
    """One terminal on one home.

    Args:
        home: where all state lives.
        engine: what trains and replies; by default the engine process of ``home``, started when first needed.
    """

    TITLE = "loraworkbench"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    COMMANDS: ClassVar[set[Callable[[], type[Provider]]]] = {_palette}  # type: ignore[assignment]
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(f"{number}", f"show_tab('{tab.id}')", tab.label, show=False, id=f"tab.{tab.id}")
            for number, tab in enumerate(TABS, 1)
        ),
        *(
            Binding(f"alt+{number}", f"show_tab('{tab.id}')", tab.label, show=False, priority=True)
            for number, tab in enumerate(TABS, 1)
        ),
        Binding("escape", "leave", "Leave the field", show=False, id="app.leave"),
        Binding("f1", "help", "Help", id="app.help", tooltip="Keys and guide of this screen"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True, id="app.quit"),
    ]

    def __init__(self, home: Home, engine: Engine | None = None) -> None:
        super().__init__()
        self.session = Session(home, engine if engine is not None else HomeEngine(home))
        self.tabs = TABS
        self.sample_hardware = True
        self.follow_steps = True
        # What nobody foresaw in this terminal.
        self.faults: list[BaseException] = []
        self._last_words: WorkbenchError | None = None
        self._loaded = False
        self._switching = asyncio.Lock()
        self._front: Pane | None = None
        self._starting_engine = False
        self._save_at = math.inf
        self._wanted_tab: str | None = None
        self._header = HeaderBar()
        self._tab_strip = TabStrip([(tab.id, tab.label) for tab in TABS])
        self._panes = ContentSwitcher(id="panes")
        self._run_bar = RunBar()
        self.set_class(not unicode_terminal(), "-ascii")
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._tab_strip
        yield self._panes
        yield self._run_bar
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(1, self._each_second)
        self.call_after_refresh(self._begin)

    def pop_screen(self) -> AwaitComplete:
        """Close the front screen; first end its workers, which Textual ends only after the widgets they look for."""
        leaving = set(self.screen.walk_children(with_self=True))
        for worker in self.workers:
            if worker.node in leaving:
                worker.cancel()
        return super().pop_screen()

    # -- start and end ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The first frame is out; now read the recipe and open a tab."""
        self.run_worker(self._load(), name="load")

    async def _load(self) -> None:
        await asyncio.to_thread(self.session.load)
        self._loaded = True
        if (theme := self.session.settings.theme) is not None and theme in self.available_themes:
            self.theme = theme
        if unusable := self.session.unusable_settings:
            self.notify(
                f"Ignored in {self.session.home.settings.name}: {', '.join(unusable)}.",
                severity="warning",
                markup=False,
            )
        self._header.show_recipe(self.session.recipe)
        self._seek_skeleton()
        watch = Watch(self.session, self._seen)
        self.run_worker(watch.engine(), name="engine status")
        self.run_worker(watch.journal(), name="journal")
        self.run_worker(watch.names(), name="names of runs")
        if self.sample_hardware:
            self.run_worker(watch.hardware(), name="hardware")
        await self.action_show_tab(self._wanted_tab or self._first_tab())
        self.run_worker(self._warm_up(), name="warm up")

    async def _warm_up(self) -> None:
        """Import the other tabs and their estimator off the event loop, so that no key has to wait for it."""
        for name in (*(tab.module for tab in TABS), "workbench.estimate"):
            await asyncio.to_thread(import_module, name)
        # Modules live as long as the app: the collector need not look through them while somebody types.
        gc.freeze()

    def _first_tab(self) -> str:
        """The tab of the last time; Models as long as no model was chosen."""
        last = self.session.settings.tab
        known = next((tab.id for tab in TABS if tab.id == last), "models")
        return known if self.session.model_chosen else "models"

    async def action_quit(self) -> None:
        """Quit the app. A live run keeps running unless it is asked to stop; an idle engine ends too."""
        status = await self._asked_status()
        if status is not None and status.run is not None:
            from screens.shell.dialogs import quit_dialog

            self.push_screen(quit_dialog(self.session.names.of(status.run), status.queued), self._quit_answered)
        else:
            if status is not None and status.state == "idle":
                # It holds the model's memory and, on a GPU, a context; the next terminal starts another one.
                with suppress(WorkbenchError, TimeoutError):
                    await asyncio.wait_for(self.session.engine.shutdown(), LEAVE_SECONDS)
            await self._leave()

    async def _asked_status(self) -> EngineStatus | None:
        """The engine's state now: what was heard of it last may be a second old, and a run may have begun since."""
        try:
            return await asyncio.wait_for(self.session.engine.status(), ASK_SECONDS)
        except WorkbenchError:
            return None
        except TimeoutError:
            return self.session.status

    async def _quit_answered(self, answer: str | None) -> None:
        from screens.shell.dialogs import LEAVE, STOP

        if answer == STOP:
            await self._guarded(self.session.engine.stop(save=True))
        if answer in (LEAVE, STOP):
            await self._leave()

    async def _leave(self) -> None:
        if self._loaded:
            await self._save()
        await self.session.engine.close()
        self.exit()

    # -- tabs ---------------------------------------------------------------------------------------------------

    @property
    def pane_in_front(self) -> Pane | None:
        """The pane that is shown; None until the first one is there, and again while the app closes."""
        return self._front if self._panes.is_attached else None

    async def action_show_tab(self, name: str) -> None:
        """Bring a tab to the front; its content is imported and mounted the first time."""
        if not self._loaded:
            self._wanted_tab = name
            return
        # Keys come through the focused widget as well as through the app: a second one must not mount a pane twice.
        async with self._switching:
            await self._bring_to_front(name)

    async def _bring_to_front(self, name: str) -> None:
        before = self.pane_in_front
        if before is not None and before.id == name:
            before.first_focus().focus()
            return
        tab = next(tab for tab in TABS if tab.id == name)
        if not self._panes.query_children(f"#{name}"):
            pane_class = getattr(await asyncio.to_thread(import_module, tab.module), tab.pane)
            await self._panes.add_content(pane_class(id=name))
        if before is not None:
            before.is_shown = False
            before.on_hidden()
        self._panes.current = name
        self._tab_strip.active = name
        self.session.remember(tab=name)
        pane = self._front = self._panes.get_child_by_id(name, Pane)
        pane.is_shown = True
        pane.on_shown()
        pane.first_focus().focus()

    def action_leave(self) -> None:
        """Out of a text field: the pane itself gets the focus, and the digits are tabs again."""
        if self.pane_in_front is not None:
            self.pane_in_front.focus()

    def action_help(self) -> None:
        """Keys and guide of this screen."""
        from screens.shell.help import HelpScreen, keys_here

        active = [entry for entry in self.screen.active_bindings.values() if entry.node not in (self, self.screen)]
        self.push_screen(HelpScreen(self.pane_in_front, keys_here(active, self.get_key_display)))

    # -- the recipe ---------------------------------------------------------------------------------------------

    def set_recipe(self, changes: Mapping[str, Any]) -> list[Problem]:
        """Change the recipe at dotted keys and tell everybody.

        Returns:
            The mistakes; where there are any, nothing has changed, and the caller shows them at the field.
        """
        from workbench.recipe.text import RecipeError

        before = self.session.recipe
        try:
            self.session.edit(changes)
        except RecipeError as error:
            return error.problems
        recipe = self.session.recipe
        self._header.show_recipe(recipe)
        self._tell(RecipeChanged(recipe))
        if recipe.model != before.model:
            self._seek_skeleton()
        self._save_soon()
        return []

    def take_preset(self, name: str) -> None:
        """Put a preset in the place of the current recipe."""
        from workbench.recipe.presets import load_preset

        try:
            preset = load_preset(name, self.session.home)
        except WorkbenchError as error:
            self.show_error(error)
            return
        self.set_recipe(preset.as_dict())
        self.notify(f'Loaded preset "{name}".', markup=False, timeout=3)

    def _seek_skeleton(self) -> None:
        # The method and not its coroutine: a worker that the next one replaces before it began would never await that.
        _: Worker[None] = self.run_worker(self._find_skeleton, name="skeleton", exclusive=True, group="skeleton")

    async def _find_skeleton(self) -> None:
        """Have the tree of the recipe's model in the session, or why there is none."""
        self._skeleton_is(None)
        model = self.session.recipe.model
        try:
            skeleton = await tree_of(model, self.session, self.start_engine)
        except WorkbenchError as error:
            self.session.skeleton_error = error
            self._tell(SkeletonChanged(None))
            return
        if model == self.session.recipe.model:
            self._skeleton_is(skeleton)

    def _skeleton_is(self, skeleton: Skeleton | None) -> None:
        self.session.skeleton = skeleton
        self.session.skeleton_error = None
        self._tell(SkeletonChanged(skeleton))

    def _save_soon(self) -> None:
        """Keep the recipe even if the line drops; not on every keystroke."""
        self._save_at = monotonic() + SAVE_SECONDS

    def _each_second(self) -> None:
        if monotonic() > self._save_at:
            self._save_at = math.inf
            self.run_worker(self._save(), name="save", group="save", exclusive=True)

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self.session.save)
        except OSError as error:
            self.notify(
                f"The settings could not be saved: {error.strerror}. Free some space in {self.session.home.root}.",
                severity="warning",
                markup=False,
            )

    # -- the engine ---------------------------------------------------------------------------------------------

    async def start_engine(self) -> None:
        """Start the engine if none runs, with its state in the header meanwhile.

        Raises:
            WorkbenchError: it does not come up.
        """
        self._starting_engine = True
        self._header.show_engine(self.session.status, starting=True)
        try:
            await self.session.engine.ensure()
        finally:
            self._starting_engine = False
            self._header.show_engine(self.session.status)

    async def unload_engine(self) -> None:
        """Give the model's memory back."""
        self.attempt(self.session.engine.unload())

    def attempt(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something that may fail in a way the user can mend; the failure is shown and the app lives on."""
        self.run_worker(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except WorkbenchError as error:
            self.show_error(error)

    def _handle_exception(self, error: Exception) -> None:
        """Show an unforeseen error of a worker and keep running; anywhere else Textual ends the app."""
        from workbench.failures.diagnose import diagnose
        from workbench.failures.unforeseen import KIND

        fault = error.error if isinstance(error, WorkerFailed) else error
        pane = self.pane_in_front
        doing = f"showing the tab {pane.NAME}" if pane is not None else "showing the app"
        told = diagnose(fault, doing, self.session.home.terminal_log)
        if told.kind == KIND:
            self.faults.append(fault)
        if isinstance(error, WorkerFailed) and self.is_running:
            self.show_error(told)
        else:
            self._last_words = told
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End the app with a sentence in the place of Textual's traceback, which is in the log."""
        if self._last_words is None:
            super()._fatal_error()
        else:
            from rich.text import Text

            self.bell()
            self.panic(Text(plain(str(self._last_words), lines=True)))

    def show_error(self, error: WorkbenchError) -> None:
        """What went wrong and what to do about it, to be read and copied."""
        from screens.shell.dialogs import ErrorDialog

        self.push_screen(ErrorDialog(error))

    # -- what the watch has seen ----------------------------------------------------------------------------------

    def _seen(self, message: Message) -> None:
        """Something changed outside: show it in the frame, and hand it to the pane in front."""
        session = self.session
        match message:
            case StatusChanged():
                self._header.show_engine(session.status, starting=self._starting_engine)
                self._show_run()
            case JournalGrew() | RunsRenamed():
                self._show_run()
            case SampleTaken():
                self._header.show_memory(session.gpus, session.host)
        self._tell(message)

    def _show_run(self) -> None:
        status, summary = self.session.status, self.session.summary
        if status is None or status.run is None or summary is None:
            self._run_bar.remove_class("-live")
        else:
            self._run_bar.add_class("-live")
            waiting = waiting_words(status.queued, status.queue_held)
            self._run_bar.show(summary, status.progress, waiting, self.session.names.of(summary.id))

    # -- small things -------------------------------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        """Post to the pane in front; a hidden one reads the session when it is shown."""
        if self.pane_in_front is not None:
            self.pane_in_front.post_message(message)

    def action_queue(self) -> None:
        """Show the queue."""
        from screens.queue.dialog import QueueScreen

        self.push_screen(QueueScreen(self))

    def toggle_theme(self) -> None:
        """Swap the light and the dark look, and keep it."""
        if not self._loaded:
            return
        self.theme = THEMES[1].name if self.theme == THEMES[0].name else THEMES[0].name
        self.session.remember(theme=self.theme)
        self._save_soon()


def run_app(home: Home) -> None:
    """Show the workbench of ``home`` in this terminal until the user quits."""
    WorkbenchApp(home).run()
