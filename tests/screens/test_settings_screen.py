"""The settings: changed in the app, applied at once, and in settings.json."""

import json
from pathlib import Path

from screens.dialogs.recipe_text import RecipeTextScreen
from screens.dialogs.settings_screen import SettingsScreen
from tests.screens.piloting import Opened, opened
from workbench.storage.paths import Home


async def settings(screen: Opened) -> None:
    await screen.press("f10")
    await screen.until(lambda: isinstance(screen.app.screen, SettingsScreen), "the settings")


def written(root: Path, key: str) -> object:
    file = Home(root).settings
    return json.loads(file.read_text()).get(key) if file.is_file() else None


async def test_a_theme_is_chosen_and_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await settings(screen)
        await screen.sees("Theme                                   workbench-dark")
        await screen.press("enter", "down", "enter")
        await screen.until(lambda: screen.app.theme == "workbench-light", "the other theme")
        await screen.until(lambda: written(tmp_path, "theme") == "workbench-light", "it is written")
        # Textual's own themes have none of the workbench's colors.
        for theme in ("nord", "textual-light"):
            screen.app.theme = theme
            await screen.pilot.pause()
        await screen.press("f10")
        await screen.until(lambda: not isinstance(screen.app.screen, SettingsScreen), "closed")
    async with opened(tmp_path) as screen:
        assert screen.app.theme == "workbench-light"


async def test_switches_and_numbers_keep_what_else_is_in_their_group(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.settings.parent.mkdir(parents=True, exist_ok=True)
    home.settings.write_text(json.dumps({"engine": {"stop_after_minutes": 45, "mine": 1}}))
    async with opened(tmp_path) as screen:
        await settings(screen)
        await screen.sees("45")
        await screen.press("down", "enter")
        await screen.until(lambda: written(tmp_path, "notify") is False, "switched off")
        await screen.press("down", "down", "enter")
        await screen.sees("Minutes without use")
        await screen.press(*["backspace"] * 5, *"many", "enter")
        await screen.sees("Enter a number, 0 or more.")
        await screen.press(*["backspace"] * 5, *"2,5", "enter")
        wanted = {"unload_after_minutes": 2.5, "stop_after_minutes": 45, "mine": 1}
        await screen.until(lambda: written(tmp_path, "engine") == wanted, "only the one has changed")


async def test_an_action_gets_another_key_and_its_own_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("runs")
        await settings(screen)
        await screen.press("end", "enter", *"recipe as yaml", "enter")
        await screen.sees("Everywhere: Recipe as YAML")
        await screen.press(*"f12", "enter")
        await screen.until(lambda: written(tmp_path, "keys") == {"app.recipe_text": "f12"}, "it is written")
        await screen.sees("1 changed")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, SettingsScreen), "closed")
        await screen.press("f12")
        await screen.until(lambda: isinstance(screen.app.screen, RecipeTextScreen), "the recipe by its new key")
        await screen.press("escape")
        await screen.until(lambda: not isinstance(screen.app.screen, RecipeTextScreen), "closed")
        await settings(screen)
        await screen.press("end", "enter", *"recipe as yaml", "enter")
        await screen.sees("Everywhere: Recipe as YAML")
        await screen.press(*["backspace"] * 3, "enter")
        await screen.until(lambda: written(tmp_path, "keys") == {}, "it has its own again")
