"""The app and ``settings.json``: it writes what was changed in it, and leaves all else as the file has it."""

import json
from pathlib import Path

from screens.session import Session
from tests.screens.piloting import opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home


def session_of(home: Home) -> Session:
    session = Session(home, ScriptedEngine(home))
    session.load()
    return session


async def test_an_edit_by_hand_survives_the_terminal_that_was_open_meanwhile(tmp_path: Path) -> None:
    home = Home(tmp_path)
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"adapter.r": 64})
        screen.app.session.save()
        by_hand = json.loads(home.settings.read_text()) | {"cache": {"tokens_gb": 1}, "mine": True}
        home.settings.write_text(json.dumps(by_hand))
        await screen.tab("architecture")
        await screen.app.action_quit()
    assert json.loads(home.settings.read_text()) == by_hand | {"tab": "architecture"}


def test_two_terminals_write_what_each_of_them_changed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first, second = session_of(home), session_of(home)
    first.edit({"adapter.r": 64})
    second.remember(theme="workbench-light")
    second.save()
    first.save()
    second.remember(tab="train")
    second.save()
    third = session_of(home)
    assert third.recipe.adapter.r == 64
    assert (third.settings.theme, third.settings.tab) == ("workbench-light", "train")


def test_changes_that_could_not_be_written_are_written_the_next_time(tmp_path: Path) -> None:
    home = Home(tmp_path / "file" / "home")
    session = session_of(home)
    session.edit({"adapter.r": 64})
    (tmp_path / "file").write_text("no folder")
    try:
        session.save()
    except OSError:
        (tmp_path / "file").unlink()
    session.save()
    assert session_of(home).recipe.adapter.r == 64


async def test_a_recipe_of_an_older_version_keeps_what_can_be_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    old = edit(Recipe(), {"adapter.r": 64}).as_dict()
    old["training"]["torch_compile"] = "auto"
    old["gone"] = {"a": 1}
    home.settings.write_text(json.dumps({"recipe": old, "theme": 3}))
    async with opened(tmp_path) as screen:
        assert screen.app.session.recipe == edit(Recipe(), {"adapter.r": 64})
        await screen.is_told("Ignored in settings.json: theme, recipe.training.torch_compile, recipe.gone.")
