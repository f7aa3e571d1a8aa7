"""The commands of the palette: tabs, the actions of the tab in front, presets, themes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from screens.queue.enqueue import sweep_current
from screens.shell.presets import choose_preset, load_preset, save_as_preset
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from screens.app import WorkbenchApp
    from screens.workbench import Workbench
    from workbench.recipe.presets import PresetDescription


class Command(NamedTuple):
    """A line of the palette: its name, what it does, and the help under it."""

    name: str
    run: Callable[[], object]
    help: str


class WorkbenchCommands(Provider):
    """Commands for the tab in front and the engine's state."""

    _presets: Sequence[PresetDescription] = ()

    @property
    def _app(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    async def startup(self) -> None:
        from workbench.recipe.presets import describe_presets

        self._presets = describe_presets(self._app.session.home)

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
        yield Command("Queue", app.action_queue, "Queued runs: add, reorder, hold")
        yield Command(
            "Sweep", partial(_attempt, app, sweep_current), "Queue the current recipe with several values of a setting"
        )
        yield Command(
            "Presets",
            partial(_attempt, app, choose_preset),
            "Choose a shipped or saved preset as the current recipe",
        )
        yield Command(
            "Save recipe as preset", partial(_attempt, app, save_as_preset), "Save the current recipe under a name"
        )
        for preset in self._presets:
            title = f"{preset.title} (yours)" if preset.own else preset.title
            yield Command(f"Recipe: {preset.name}", partial(load_preset, app, preset.name), plain(title))
        if app.session.status is not None:
            unload = partial(_attempt, app, _unload)
            yield Command("Engine: release GPU memory", unload, "Unload the model; the engine keeps running")
        dark = app.theme.endswith("dark")
        yield Command(
            f"Theme: {'light' if dark else 'dark'}", app.toggle_theme, "Switch between the light and the dark theme"
        )
        yield Command("Help", app.action_help, "Keys and guide of this screen (F1)")
        yield Command("Quit", app.action_quit, "A live run can keep running without the terminal")


async def _unload(app: Workbench) -> None:
    await app.session.engine.unload()


def _attempt(app: WorkbenchApp, ask: Callable[[WorkbenchApp], Coroutine[Any, Any, None]]) -> None:
    """Ask in a worker, which can wait for the answer; an error is shown."""
    app.attempt(ask(app))
