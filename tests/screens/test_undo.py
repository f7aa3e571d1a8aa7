"""Undo and redo over the recipe: by every way it is changed, and in words."""

from pathlib import Path

from screens.dialogs.presets import load_preset
from screens.forms.row import SettingRow
from screens.recipe_history import STEPS_KEPT, RecipeHistory, RecipeState
from tests.screens.piloting import NARROW, opened
from tests.screens.test_presets_in_app import palette
from workbench.recipe.differences import change_text
from workbench.recipe.presets import load_preset as preset
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit


def ranked(rank: int) -> Recipe:
    return edit(Recipe(), {"adapter.r": rank})


def test_the_history_keeps_the_last_steps_and_a_change_ends_the_future() -> None:
    history = RecipeHistory()
    for rank in range(1, STEPS_KEPT + 11):
        history.record(RecipeState(ranked(rank), None), ranked(rank + 1))
    now = RecipeState(ranked(STEPS_KEPT + 11), None)
    steps = 0
    while (before := history.undo(now)) is not None:
        now, steps = before, steps + 1
    assert (steps, now.recipe.adapter.r) == (STEPS_KEPT, 11)
    assert history.redo(now) == RecipeState(ranked(12), None)
    history.record(RecipeState(ranked(12), None), ranked(3))
    assert history.redo(RecipeState(ranked(3), None)) is None


def test_one_edit_is_one_step_and_none_if_it_ends_where_it_began() -> None:
    history, typing = RecipeHistory(), object()
    for before, after in ((16, 1), (1, 12), (12, 128)):
        history.record(RecipeState(ranked(before), None), ranked(after), typing)
    history.record(RecipeState(ranked(128), None), ranked(8), object())
    history.record(RecipeState(ranked(8), None), ranked(9), last := object())
    history.record(RecipeState(ranked(9), None), ranked(8), last)
    now = RecipeState(ranked(8), None)
    assert history.undo(now) == RecipeState(ranked(128), None)
    assert history.undo(now) == RecipeState(ranked(16), None)
    assert history.undo(now) is None


def test_a_change_in_words_has_the_values_as_they_are_typed() -> None:
    assert change_text(ranked(16), ranked(8)) == "r 16 → 8"
    several = edit(
        Recipe(),
        {
            "adapter.lora_alpha": 50,
            "adapter.target_modules": ["q_proj", "v_proj"],
            "training.learning_rate": 1e-4,
            "data.packing": True,
            "output.dir": "a",
        },
    )
    assert change_text(Recipe(), several, most=9) == (
        "target_modules all-linear → [q_proj, v_proj], lora_alpha 2·r → 50, packing off → on, "
        "learning_rate 2e-4 → 1e-4, dir none → a"
    )
    assert change_text(Recipe(), several).endswith("packing off → on and 2 more")


async def test_keys_undo_and_redo_what_the_form_changed(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        session = screen.app.session
        await screen.tab("adapter")
        await screen.press("ctrl+z")
        await screen.is_told("Nothing to undo.")
        await screen.press("left")
        assert session.recipe.adapter.r == 8
        # Typing a value is one step, whatever it went through; taking it back leaves none.
        await screen.press("1", "2", "8", "enter", "4", "escape")
        assert session.recipe.adapter.r == 128
        await screen.sees("❯•rank r          128")
        await screen.press("ctrl+z")
        assert session.recipe.adapter.r == 8
        await screen.is_told("Undo: r 128 → 8")
        await screen.press("ctrl+z")
        assert session.recipe == Recipe()
        await screen.is_told("Undo: r 8 → 16")
        row = screen.app.query_one("#rank-r", SettingRow)
        await screen.until(lambda: "•" not in row.render().plain, "no mark at the default")
        await screen.burst("ctrl+y", "ctrl+y", "ctrl+y")
        assert session.recipe.adapter.r == 128
        await screen.is_told("Redo: r 8 → 128")
        await screen.is_told("Nothing to redo.")
        await screen.sees("r 128")
        # While a value is typed, it is taken back.
        await screen.press("5", "ctrl+z")
        assert (session.recipe.adapter.r, row.is_editing) == (128, False)


async def test_presets_and_the_palette_are_undone_and_the_name_keeps_following(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        session = screen.app.session
        load_preset(screen.app, "demo")
        assert session.recipe == preset("demo")
        await palette(screen, "Recipe: tinyllama-chat")
        await screen.until(lambda: session.recipe == preset("tinyllama-chat"), "the second preset")
        await screen.press("ctrl+z")
        assert session.recipe == preset("demo")
        await screen.is_told("Undo: model ")
        # As before the second preset: its name goes with its data.
        screen.app.set_recipe({"data.source": "pirate-talk"})
        assert session.recipe.output.name == "run"
        await screen.press("ctrl+z", "ctrl+z")
        assert session.recipe == Recipe()
        await screen.until(lambda: session.skeleton is not None, "the module tree of the first model")
        assert "SmolLM2" in screen.words.splitlines()[0]


async def test_in_a_text_field_the_keys_leave_the_recipe_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"adapter.r": 8})
        await screen.press("slash", "x", "ctrl+z")
        assert screen.app.session.recipe.adapter.r == 8
        await screen.press("escape", "ctrl+z")
        assert screen.app.session.recipe.adapter.r == 16
