"""Commands of the palette that need no reading: actions of tabs, what works everywhere, and settings with values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textual.binding import Binding

from screens.adapter.fields import form
from screens.data.fields import data_settings
from screens.dialogs.presets import choose_preset, save_as_preset
from screens.queue.enqueue import sweep_current
from screens.shell.cost_view import price_after
from screens.widgets.key_texts import key
from workbench.recipe.differences import change_text
from workbench.recipe.text import RecipeError, edit, parse_value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from textual.screen import Screen

    from screens.app import WorkbenchApp
    from screens.forms.fields import SettingSpec
    from screens.workbench import Workbench
    from workbench.recipe.schema import Recipe


@dataclass(frozen=True)
class Command:
    """A line of the palette.

    Attributes:
        name: what it is called, and ``help``, what it does.
        keys: that do the same.
        weight: of two commands that match alike, the heavier is listed first.
        is_answer: whether it was made for what is typed, and so matches it.
    """

    name: str
    run: Callable[[], object]
    help: str
    keys: str = ""
    weight: float = 1.0
    is_answer: bool = False

    @cached_property
    def text(self) -> str:
        """All that it is found by."""
        return f"{self.name} {self.help} {self.keys}".casefold()


def actions(app: WorkbenchApp, screen: Screen[Any] | None = None) -> Iterator[Command]:
    """Yield the available actions of the tab in front of a screen; without one, all actions of the other tabs."""
    front = app.pane_in_front
    if screen is not None:
        if front is not None:
            for namespace, binding, enabled, tooltip in screen.active_bindings.values():
                if enabled and binding.id and binding.description and namespace not in (app, screen):
                    run = partial(app.run_action, binding.action, namespace)
                    keys = app.get_key_display(binding)
                    yield Command(f"{front.NAME}: {binding.description}", run, tooltip, keys, weight=1.5)
        return
    for tab in app.tabs:
        if front is not None and tab.id == front.id:
            continue
        pane = getattr(import_module(tab.module), tab.pane)
        for binding in pane.BINDINGS:
            if isinstance(binding, Binding) and binding.id and binding.description:
                go = partial(_on_tab, app, tab.id, binding.action)
                keys = app.get_key_display(binding)
                yield Command(f"{tab.label}: {binding.description}", go, binding.tooltip, keys, weight=0.8)


async def _on_tab(app: WorkbenchApp, tab: str, action: str) -> None:
    """Open a tab and do one of its actions there; what is not available now is said."""
    await app.action_show_tab(tab)
    if (pane := app.pane_in_front) is not None and not await app.run_action(action, pane):
        app.notify("That is not available now.", severity="warning")


def everywhere(app: WorkbenchApp) -> Iterator[Command]:
    """Yield what can be done on every tab."""
    for tab in app.tabs:
        yield Command(f"Go to {tab.label}", partial(app.action_show_tab, tab.id), "Open the tab", key(f"tab.{tab.id}"))
    yield Command("Queue", app.action_queue, "Queued runs: add, reorder, hold")
    yield Command("Tour", app.action_tour, "Choose a model, records and a recipe that fits, step by step")
    yield Command(
        "Settings", app.action_settings, "Theme, keys, notification, limits of engine and caches", key("app.settings")
    )
    yield Command("Jobs", app.action_jobs, "What runs in the background: progress, stop, result", key("app.jobs"))
    sweep, choose, save = (partial(_attempt, app, ask) for ask in (sweep_current, choose_preset, save_as_preset))
    yield Command("Sweep", sweep, "Queue the current recipe with several values of a setting")
    yield Command("Presets", choose, "Choose a shipped or saved preset as the current recipe")
    yield Command("Save recipe as preset", save, "Save the current recipe under a name")
    yield Command(
        "Recipe as YAML", app.action_recipe_text, "Show, edit and compare the current recipe", key("app.recipe_text")
    )
    yield Command("Find setting", app.action_find_setting, "Find a setting by its name or help, and go to its field")
    yield Command("Undo", app.action_undo, "Undo the last change of the recipe", key("app.undo"))
    yield Command("Redo", app.action_redo, "Make an undone change of the recipe again", key("app.redo"))
    if app.session.status is not None:
        unload = partial(_attempt, app, _unload)
        yield Command("Engine: release GPU memory", unload, "Unload the model; the engine keeps running")
    other = "light" if app.theme.endswith("dark") else "dark"
    yield Command(f"Theme: {other}", app.toggle_theme, "Switch between the light and the dark theme")
    yield Command("Help", app.action_help, "Keys and guide of this screen", key("app.help"))
    yield Command("Quit", app.action_quit, "A live run can keep running without the terminal", key("app.quit"))


# -- settings -------------------------------------------------------------------------------------------------------

# Short names that people type, beside the keys and the labels of the forms.
_SHORT = {
    "lr": "training.learning_rate",
    "rank": "adapter.r",
    "alpha": "adapter.lora_alpha",
    "dropout": "adapter.lora_dropout",
    "targets": "adapter.target_modules",
    "batch": "training.per_device_train_batch_size",
    "length": "data.max_length",
    "steps": "training.max_steps",
    "epochs": "training.num_train_epochs",
    "warmup": "training.warmup_ratio",
    "clip": "training.max_grad_norm",
    "patience": "training.early_stopping_patience",
    "name": "output.name",
}
_MOST_ANSWERS = 4


def setting_commands(app: WorkbenchApp, query: str) -> Iterator[Command]:
    """Yield a command for each setting that ``lr 1e-4`` or ``rank = 32`` can mean: it sets it, and says the price."""
    if not app.is_recipe_known:
        return
    recipe, found = app.session.recipe, 0
    for name, value in _readings(query):
        for spec in _specs_named(name):
            changes = _allowed_changes(spec, value, recipe)
            if changes is not None:
                changed = edit(recipe, changes)
                words = change_text(recipe, changed) or f"{spec.setting.name} is {value} already"
                run = partial(app.set_recipe, changes)
                # The beginning of a name may be meant as a word: "run pirate" is a run, too.
                weight = 3.0 if _is_name(name, spec) else 1.3
                yield Command(f"Set {words}", run, price_after(app.session, changed), weight=weight, is_answer=True)
                found += 1
            if found == _MOST_ANSWERS:
                return
        if found:
            return


def _readings(query: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to read a name and a value, the longest name first: ``max length 2k``, ``r=8``, ``dir: a``."""
    if signed := re.fullmatch(r"\s*([^=:]+?)\s*[=:]\s*(\S.*?)\s*", query):
        yield signed[1].casefold(), signed[2]
    words = query.split()
    for count in range(len(words) - 1, 0, -1):
        yield " ".join(words[:count]).casefold(), " ".join(words[count:])


def _allowed_changes(spec: SettingSpec, value: str, recipe: Recipe) -> Mapping[str, object] | None:
    for changes in _changes(spec, value):
        try:
            edit(recipe, changes)
        except RecipeError:
            continue
        return changes
    return None


@cache
def _specs() -> tuple[SettingSpec, ...]:
    return (*(spec for group in form() for spec in group.settings), *data_settings())


def _specs_named(name: str) -> Iterator[SettingSpec]:
    """Yield the fields with a name: those of exactly this name, else those that begin with it."""
    exact = [spec for spec in _specs() if _is_name(name, spec)]
    if exact or len(name) < 2:
        yield from exact
    else:
        yield from (spec for spec in _specs() if any(one.startswith(name) for one in _names(spec)))


def _is_name(name: str, spec: SettingSpec) -> bool:
    return name in _names(spec) or _SHORT.get(name) == spec.path


@cache
def _names(spec: SettingSpec) -> tuple[str, ...]:
    key = spec.setting.name
    return key, key.replace("_", " "), spec.label.casefold(), spec.path


def _changes(spec: SettingSpec, value: str) -> Iterator[Mapping[str, object]]:
    """Yield what a typed value can mean: a choice by its label, a text as in the field, a value as in YAML."""
    for option in spec.options(None):
        if option.label.casefold() == value.casefold():
            yield option.changes
    if spec.parse is not None:
        yield spec.parse(value)
    try:
        yield {spec.path: parse_value(value)}
    except ValueError:
        return


def settings_as_commands(app: WorkbenchApp) -> Iterator[Command]:
    """Yield a command for every setting, which goes to its field."""
    for spec in _specs():
        setting = spec.setting
        usage = f"{setting.path}. Type its name and a value to set it. {setting.help}"
        yield Command(f"Setting: {spec.label}", partial(app.go_to_setting, setting.path), usage, weight=0.6)


async def _unload(app: Workbench) -> None:
    await app.session.engine.unload()


def _attempt(app: WorkbenchApp, ask: Callable[[WorkbenchApp], Coroutine[Any, Any, None]]) -> None:
    """Ask in a worker, which can wait for the answer; an error is shown."""
    app.attempt(ask(app), asks=True)
