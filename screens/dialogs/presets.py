"""Presets in the app: load one as the current recipe, or save the current recipe as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from screens.dialogs.pick import PickDialog
from screens.dialogs.questions import YES, Choice, ChoiceDialog, LineDialog
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from screens.workbench import Workbench
    from workbench.recipe.presets import PresetDescription

_ASKED = (
    "Saves the current recipe under this name in the presets folder of {home}. Allowed: "
    "letters, digits, '.', '_' and '-'."
)


async def choose_preset(app: Workbench) -> None:
    """List all presets, the user's own marked, and load the chosen one."""
    from workbench.recipe.presets import describe_presets

    found = await asyncio.to_thread(describe_presets, app.session.home)
    width = max(len(preset.name) for preset in found)
    lines = [(preset.name, f"{preset.name:{width}}  {_words(preset)}") for preset in found]
    name = await app.push_screen_wait(PickDialog("Presets", lines))
    if name is not None:
        load_preset(app, name)


def load_preset(app: Workbench, name: str) -> None:
    """Load a preset as the current recipe, or show why it cannot be loaded."""
    from workbench.recipe import presets

    try:
        preset = presets.load_preset(name, app.session.home)
    except WorkbenchError as error:
        app.show_error(error)
        return
    app.set_recipe(preset.as_dict())
    app.session.remember(preset_name=preset.output.name)
    app.notify(f'Loaded preset "{name}".', markup=False, timeout=3)


async def save_as_preset(app: Workbench) -> None:
    """Ask for a name and save the current recipe under it; an existing preset is replaced if the user confirms.

    Raises:
        WorkbenchError: the name is not allowed, or the file cannot be written.
    """
    from workbench.recipe.presets import describe_presets, save_preset

    home, recipe = app.session.home, app.session.recipe
    asked = LineDialog("Save recipe as preset", _ASKED.format(home=home.root), recipe.output.name or "", "my-recipe")
    name = ((await app.push_screen_wait(asked)) or "").strip()
    if not name:
        return
    there = {preset.name: preset for preset in await asyncio.to_thread(describe_presets, home)}
    if name in there and not await _may_replace(app, there[name]):
        return
    await asyncio.to_thread(save_preset, name, recipe, home)
    app.notify(f"Saved as preset {name}.", markup=False, timeout=4)


async def _may_replace(app: Workbench, preset: PresetDescription) -> bool:
    own = f"This overwrites your preset {preset.name}."
    shipped = f"{preset.name} ships with the workbench. Your preset will be used instead of it."
    replace = Choice(YES, "Replace it", "replace")
    question = ChoiceDialog(f"Replace {preset.name}?", own if preset.own else shipped, [replace], is_risky=True)
    return await app.push_screen_wait(question) is not None


def _words(preset: PresetDescription) -> str:
    return f"{preset.title} (yours)" if preset.own else preset.title
