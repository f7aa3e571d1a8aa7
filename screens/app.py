"""The app: seven tabs over one recipe, one engine and at most one live run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.events import Key, Paste
from textual.widgets import Input
from textual.worker import WorkerFailed

from screens.messages import JournalGrew, RunsRenamed, SampleTaken, StatusChanged
from screens.session import Session
from screens.shell.app_keys import KEYS
from screens.shell.footer import KeyFooter
from screens.shell.header import HeaderBar
from screens.shell.jobs import Jobs
from screens.shell.jobs_line import JobsLine
from screens.shell.key_order import KeyOrder
from screens.shell.pane_switcher import PaneSwitcher
from screens.shell.recipe_editing import RecipeEditing
from screens.shell.run_bar import RunBar
from screens.shell.tab_strip import TabStrip
from screens.shell.tabs_screen import TabsScreen
from screens.shell.terminal_signals import end_of_run, notification, tell_terminal
from screens.shell.watch import Watch
from screens.shell.watched_run import WatchedRun
from screens.tabs import TABS
from screens.theme import THEMES
from screens.widgets.ascii_filter import AsciiFilter
from screens.widgets.glyphs import unicode_terminal
from screens.widgets.key_texts import use_keys
from screens.widgets.sizes import NARROW_BELOW
from screens.widgets.workers import cancel_workers_of
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual import events
    from textual.await_complete import AwaitComplete
    from textual.command import Provider
    from textual.filter import LineFilter
    from textual.message import Message

    from screens.forms.row import SettingRow
    from screens.widgets.pane import Pane
    from workbench.engine.client.home_engine import HomeEngine
    from workbench.errors import Problem
    from workbench.storage.paths import Home


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
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW_BELOW, "-wide")]  # noqa: RUF012
    COMMANDS: ClassVar[set[Callable[[], type[Provider]]]] = {_palette}  # type: ignore[assignment]
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    def __init__(self, home: Home, engine: HomeEngine | None = None) -> None:
        super().__init__()
        self.session = Session(home, engine)
        self.tabs = TABS
        self.sample_hardware = True
        self.trace_steps = True
        self.offers_tour = False
        self.tell_terminal: Callable[[str], None] = tell_terminal
        # Errors of this terminal that nobody foresaw.
        self.faults: list[BaseException] = []
        self._loaded = False
        self._starting_engine = False
        self._wanted_tab: str | None = None
        self._watched_run = WatchedRun()
        self._header = HeaderBar()
        self._recipe = RecipeEditing(self, self.session, self._header, self._tell, self.start_engine)
        self._tab_strip = TabStrip([(tab.id, tab.label) for tab in TABS])
        self._panes = PaneSwitcher()
        self._run_bar = RunBar()
        self.key_order = KeyOrder(self, super().on_event)
        self._jobs_line = JobsLine()
        self.jobs = Jobs(
            lambda work: self.run_worker(work, group="jobs"),
            self._tell_of_job,
            lambda: self._jobs_line.show(self.jobs.in_view),
        )
        self._ascii = AsciiFilter(enabled=not unicode_terminal())
        self.set_class(self._ascii.enabled, "-ascii")
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def get_default_screen(self) -> TabsScreen:
        return TabsScreen(id="_default")

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._tab_strip
        yield self._panes
        yield self._jobs_line
        yield self._run_bar
        yield KeyFooter()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return what changes each painted line: in a terminal without UTF-8, all other characters are replaced."""
        return [*super().get_line_filters(), *([self._ascii] if self._ascii.enabled else [])]

    def on_mount(self) -> None:
        self.call_after_refresh(self._begin)

    async def on_event(self, event: events.Event) -> None:
        """Textual's; keys and pasted text are handed on one at a time."""
        if isinstance(event, (Key, Paste)) and not event.is_forwarded:
            await self.key_order.take(event)
        else:
            await super().on_event(event)

    def pop_screen(self) -> AwaitComplete:
        """Close the front screen, and first end its workers: Textual ends them after the widgets they look for."""
        cancel_workers_of(self.screen)
        return super().pop_screen()

    # -- start and end ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Read the recipe and open a tab: the first frame is drawn."""
        self.run_worker(self._load(), name="load")

    async def _load(self) -> None:
        await asyncio.to_thread(self.session.load)
        self._loaded = True
        self.apply_settings()
        if unusable := self.session.unusable_settings:
            self.notify(
                f"Ignored in {self.session.home.settings.name}: {', '.join(unusable)}.",
                severity="warning",
                markup=False,
            )
        self._header.show_recipe(self.session.recipe, None)
        self._recipe.read_tree()
        watch = Watch(self.session, self._seen)
        self.run_worker(watch.engine(), name="engine status")
        self.run_worker(watch.journal(), name="journal")
        self.run_worker(watch.names(), name="names of runs")
        if self.sample_hardware:
            self.run_worker(watch.hardware(), name="hardware")
        first = await self._first_tab()
        await self.action_show_tab(self._wanted_tab or first)
        is_first_start = not self.session.model_chosen and not self.session.is_live
        # Somebody who has opened another tab meanwhile knows the way.
        if self.offers_tour and is_first_start and self._tab_strip.active == "models":
            self.action_tour()
        self.run_worker(self._warm_up(), name="warm up")
        self.run_worker(self._tell_of_a_broken_off_run(), name="broken off run")

    async def _tell_of_a_broken_off_run(self) -> None:
        """Say that the newest run broke off, with the keys that resume it."""
        from screens.shell.broken_off import broken_off_run

        if self.session.is_live:
            return
        if text := await asyncio.to_thread(broken_off_run, self.session.home):
            self.notify(text, severity="warning", markup=False, timeout=15)

    async def _warm_up(self) -> None:
        """Import the other tabs and the estimator off the event loop, so that no key waits for it."""
        for name in (*(tab.module for tab in TABS), "workbench.estimate"):
            await asyncio.to_thread(import_module, name)
        # Modules live as long as the app: the garbage collector need not look through them at every turn.
        gc.freeze()

    async def _first_tab(self) -> str:
        """Return Train while a run is live, else the tab of the last session; Models until a model was chosen."""
        from screens.dialogs.quitting import current_status

        status = await current_status(self.session)
        if status is not None and status.run is not None:
            return "train"
        last = self.session.settings.tab
        known = next((tab.id for tab in TABS if tab.id == last), "models")
        return known if self.session.model_chosen else "models"

    async def action_quit(self) -> None:
        """Quit the app. A live run keeps running unless it is asked to stop; an idle engine ends too."""
        from screens.dialogs.quitting import Quitting

        await Quitting(self, self._leave).begin()

    async def _leave(self) -> None:
        """Save, end all workers while their widgets are still there, and exit."""
        if self._loaded:
            await self._recipe.save()
        self.jobs.stop_all()
        cancel_workers_of(self)
        await self.session.engine.close()
        self.exit()

    # -- tabs ---------------------------------------------------------------------------------------------------

    @property
    def pane_in_front(self) -> Pane | None:
        """The pane that is shown; None before the first one is mounted and while the app closes."""
        return self._panes.front

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # Keys with priority reach the app through a dialog; the tab behind it stays.
        if action == "show_tab":
            return not self.screen.is_modal
        # In a text field these keys would seem to be about its text.
        return action not in ("undo", "redo") or (self._loaded and not isinstance(self.focused, Input))

    async def action_show_tab(self, name: str) -> None:
        """Bring a tab to the front; its pane is mounted the first time."""
        if not self._loaded:
            self._wanted_tab = name
            return
        await self._panes.bring_to_front(name)
        self._tab_strip.active = name
        self.session.remember(tab=name)

    def action_leave(self) -> None:
        """Esc: leave a text field; else clear the filter; else go back to the list or form."""
        if self.pane_in_front is not None:
            self.pane_in_front.leave()

    def action_help(self) -> None:
        """Show keys and guide of the tab or dialog in front, or close them."""
        from screens.dialogs.help import HelpScreen, help_on

        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        else:
            self.push_screen(help_on(self.screen, self.pane_in_front, self.get_key_display))

    # -- the recipe ---------------------------------------------------------------------------------------------

    def set_recipe(self, changes: Mapping[str, Any], edit: object = None) -> list[Problem]:
        """Change the recipe at dotted keys and tell the pane in front.

        Args:
            edit: what the change is a part of, such as the typing of a value; it is undone as a whole.

        Returns:
            The mistakes, for the caller to show; if there are any, nothing has changed.
        """
        return self._recipe.change(changes, edit)

    def action_undo(self) -> None:
        """Undo the last change of the recipe, and say what changed back."""
        self._recipe.undo()

    def action_redo(self) -> None:
        """Make a change of the recipe again that was undone."""
        self._recipe.redo()

    def action_recipe_text(self) -> None:
        """Show the current recipe as YAML, to edit and to compare."""
        if self._loaded:
            from screens.dialogs.recipe_text import RecipeTextScreen

            self.push_screen(RecipeTextScreen(self))

    def action_find_setting(self) -> None:
        """Find a setting by its name or its help, and go to its field."""
        from screens.dialogs.setting_search import find_setting_dialog

        async def chosen(path: str | None) -> None:
            if path is not None:
                await self.go_to_setting(path)

        self.push_screen(find_setting_dialog(), chosen)

    @property
    def is_recipe_known(self) -> bool:
        """Whether the recipe was read: it is a moment after the first frame."""
        return self._loaded

    async def go_to_setting(self, path: str) -> None:
        """Open the tab with the field of a dotted key, and move to it."""
        from screens.forms.places import tab_of

        await self.action_show_tab(tab_of(path))
        if (pane := self.pane_in_front) is not None:
            pane.select_setting(path)

    def on_setting_row_list_asked(self, event: SettingRow.ListAsked) -> None:
        """Show the values of a setting as a list."""
        from screens.dialogs.setting_search import values_dialog

        row = event.row

        def chosen(answer: str | None) -> None:
            if answer is not None:
                row.action_choose(int(answer))

        self.push_screen(values_dialog(row), chosen)

    # -- the engine ---------------------------------------------------------------------------------------------

    async def start_engine(self) -> None:
        """Start the engine if none runs, showing so in the header.

        Raises:
            WorkbenchError: it does not start.
        """
        self._starting_engine = True
        self._header.show_engine(self.session.status, starting=True)
        try:
            await self.session.engine.ensure()
        finally:
            self._starting_engine = False
            self._header.show_engine(self.session.status)

    def attempt(self, work: Coroutine[Any, Any, object], *, asks: bool = False) -> None:
        """Run something in a worker; an error that the user can fix is shown, and the app keeps running.

        Args:
            asks: whether it may open a dialog: the keys that follow wait for it.
        """
        self.run_worker(self._guarded(work, self.key_order.may_open_dialog() if asks else None))

    async def _guarded(self, work: Coroutine[Any, Any, object], ended: Callable[[], None] | None) -> None:
        try:
            await work
        except WorkbenchError as error:
            self.show_error(error)
        finally:
            if ended is not None:
                ended()

    def _handle_exception(self, error: Exception) -> None:
        """Explain an unforeseen error: the app survives that of a worker, and ends with any other.

        Textual has no public hook for this; pyproject.toml bounds its version.
        """
        from screens.shell.unforeseen import Unforeseen
        from workbench.failures.diagnose import diagnose
        from workbench.failures.unforeseen import KIND

        fault = error.error if isinstance(error, WorkerFailed) else error
        pane = self.pane_in_front
        doing = f"showing the tab {pane.NAME}" if pane is not None else "showing the app"
        explained = diagnose(fault, doing, self.session.home.terminal_log)
        if explained.kind == KIND:
            self.faults.append(fault)
        if isinstance(error, WorkerFailed) and self.is_running:
            self.show_error(explained)
        else:
            super()._handle_exception(Unforeseen(explained, fault))

    def _tell_of_job(self, text: str, is_error: bool) -> None:
        self.notify(text, severity="error" if is_error else "information", markup=False)

    def show_error(self, error: WorkbenchError) -> None:
        """Show what went wrong and what to do about it."""
        from screens.dialogs.questions import ErrorDialog

        self.push_screen(ErrorDialog(error))

    # -- what the watch has seen ----------------------------------------------------------------------------------

    def _seen(self, message: Message) -> None:
        """Show a change from outside in the header and the run bar, and post it to the pane in front."""
        session = self.session
        match message:
            case StatusChanged():
                self._header.show_engine(session.status, starting=self._starting_engine)
                self._run_bar.show_live(session)
            case JournalGrew() | RunsRenamed():
                self._run_bar.show_live(session)
                ended = session.summary if self._watched_run.has_just_ended(session.summary) else None
                if ended is not None and session.settings.notify:
                    self.tell_terminal(notification(*end_of_run(ended, session.names.of(ended.id))))
            case SampleTaken():
                self._header.show_memory(session.gpus, session.host)
        self._tell(message)

    # -- small things -------------------------------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        """Post to the pane in front; hidden panes read the session when they are shown."""
        if self.pane_in_front is not None:
            self.pane_in_front.post_message(message)

    def action_tour(self) -> None:
        """Show the tour: a model, records, and a recipe that fits."""
        from screens.dialogs.tour import TourScreen

        self.push_screen(TourScreen(self))

    def apply_settings(self) -> None:
        """Use the theme and the keys of the settings."""
        settings = self.session.settings
        if settings.theme is not None and settings.theme in self.available_themes:
            self.theme = settings.theme
        self.set_keymap(settings.keys)
        use_keys(settings.keys)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the workbench's own colors, which Textual's themes do not have."""
        return dict(THEMES[0].variables)

    def action_settings(self) -> None:
        """Show the settings, or close them."""
        from screens.dialogs.settings_screen import SettingsScreen

        if isinstance(self.screen, SettingsScreen):
            self.pop_screen()
        elif self._loaded:
            self.push_screen(SettingsScreen(self))

    def action_jobs(self) -> None:
        """Show the list of jobs, or close it."""
        from screens.shell.jobs_screen import JobsScreen

        if isinstance(self.screen, JobsScreen):
            self.pop_screen()
        else:
            self.push_screen(JobsScreen(self))

    def action_queue(self) -> None:
        """Show the queue."""
        from screens.queue.dialog import QueueScreen

        self.push_screen(QueueScreen(self))

    def toggle_theme(self) -> None:
        """Switch between the light and the dark theme, and remember it."""
        if not self._loaded:
            return
        self.theme = THEMES[1].name if self.theme == THEMES[0].name else THEMES[0].name
        self.session.remember(theme=self.theme)
        self._recipe.save_soon()


def run_app(home: Home) -> None:
    """Show the workbench of ``home`` in this terminal until the user quits."""
    app = WorkbenchApp(home)
    app.offers_tour = True
    app.run()
