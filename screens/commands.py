"""The command palette: every tab, every key's action on the tab in front, presets, themes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from textual.command import DiscoveryHit, Hit, Hits, Provider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from screens.app import WorkbenchApp


class Command(NamedTuple):
    """A line of the palette: its words, what it does, and the help under it."""

    name: str
    run: Callable[[], object]
    help: str


class WorkbenchCommands(Provider):
    """Commands that depend on what is in front and on the engine's state."""

    _presets: Sequence[str] = ()

    @property
    def _app(self) -> WorkbenchApp:
        from screens.app import WorkbenchApp

        assert isinstance(self.app, WorkbenchApp)
        return self.app

    async def startup(self) -> None:
        from workbench.presets import preset_names

        self._presets = preset_names(self._app.session.home)

    async def discover(self) -> Hits:
        for command in self._commands():
            yield DiscoveryHit(command.name, command.run, help=command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._commands():
            if (score := matcher.match(command.name)) > 0:
                yield Hit(score, matcher.highlight(command.name), command.run, help=command.help)

    def _commands(self) -> Iterator[Command]:
        app = self._app
        pane = app.pane_in_front
        if pane is not None:
            for namespace, binding, enabled, tooltip in self.screen.active_bindings.values():
                if enabled and binding.id and binding.description and namespace not in (app, self.screen):
                    run = partial(app.run_action, binding.action, namespace)
                    yield Command(f"{pane.NAME}: {binding.description}", run, tooltip or f"key {binding.key}")
        for number, tab in enumerate(app.tabs, 1):
            yield Command(f"Go to {tab.label}", partial(app.action_show_tab, tab.id), f"key {number}")
        for name in self._presets:
            yield Command(f"Recipe: {name}", partial(app.take_preset, name), "Take this preset for the recipe in hand")
        if app.session.status is not None:
            yield Command(
                "Engine: give the model's memory back", app.unload_engine, "Unloads the model, keeps the engine"
            )
        dark = app.theme.endswith("dark")
        yield Command(f"Theme: {'light' if dark else 'dark'}", app.toggle_theme, "Swap the light and the dark look")
        yield Command("Help", app.action_help, "What can be done here (F1)")
        yield Command("Quit", app.action_quit, "A live run can go on without the terminal")
