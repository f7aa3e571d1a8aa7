"""Presets: chosen from a list, and the current recipe kept as one beside them."""

from pathlib import Path

from textual.command import CommandList

from screens.dialogs.questions import ErrorDialog
from tests.screens.piloting import NARROW, Opened, opened
from workbench.recipe.presets import load_preset, preset_names, save_preset
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit


async def palette(screen: Opened, name: str) -> None:
    """Run a command by its name in the palette."""
    await screen.press("ctrl+p", *name)
    await screen.sees(name)
    await screen.until(lambda: _first_command(screen).startswith(name), "the command on top")
    await screen.press("enter")


def _first_command(screen: Opened) -> str:
    commands = screen.app.screen.query_one(CommandList)
    return str(commands.get_option_at_index(0).prompt) if commands.option_count else ""


async def test_the_recipe_in_hand_is_saved_and_found_among_the_presets(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        screen.app.set_recipe({"adapter.r": 48, "output.name": "harbour"})
        await palette(screen, "Save recipe as preset")
        await screen.sees("in the presets folder of")
        await screen.press("end", *"-2", "enter")
        await screen.until(lambda: "harbour-2" in preset_names(screen.app.session.home), "the preset kept")
        kept = load_preset("harbour-2", screen.app.session.home)
        assert kept == screen.app.session.recipe
        screen.app.set_recipe({"adapter.r": 8})
        await palette(screen, "Presets")
        await screen.sees("QLoRA r=16 on SmolLM2")
        await screen.press("end")
        await screen.sees("harbour-2 (yours)")
        await screen.press("enter")
        await screen.until(lambda: screen.app.session.recipe.adapter.r == 48, "the preset taken")
        await palette(screen, "Recipe: harbour-2")


async def test_a_preset_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        home = screen.app.session.home
        save_preset("mine", edit(Recipe(), {"adapter.r": 4}), home)
        screen.app.set_recipe({"adapter.r": 64, "output.name": "mine"})
        await palette(screen, "Save recipe as preset")
        await screen.sees("in the presets folder of")
        await screen.press("enter")
        await screen.sees("This overwrites your preset mine.")
        await screen.press("n")
        await screen.until(lambda: "overwrites" not in screen.words, "the question gone")
        assert load_preset("mine", home).adapter.r == 4
        await palette(screen, "Save recipe as preset")
        await screen.sees("in the presets folder of")
        await screen.press("enter")
        await screen.sees("This overwrites your preset mine.")
        await screen.press("y")
        await screen.until(lambda: load_preset("mine", home).adapter.r == 64, "the preset replaced")
        assert preset_names(home).count("mine") == 1


async def test_a_name_that_cannot_be_a_presets_is_refused_in_words(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        screen.app.set_recipe({"output.name": ""})
        await palette(screen, "Save recipe as preset")
        await screen.sees("in the presets folder of")
        await screen.press(*"../out", "enter")
        await screen.until(lambda: isinstance(screen.app.screen, ErrorDialog), "the refusal")
        await screen.sees("is not a valid preset name")
        assert not (tmp_path / "presets").exists()


async def test_a_presets_name_goes_with_its_model_and_data_and_one_that_was_given_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        app = screen.app
        await palette(screen, "Recipe: demo")
        assert app.session.recipe.output.name == "demo"
        app.set_recipe({"adapter.r": 8})
        await screen.tab("train")
        await screen.sees("run name  demo")
        app.set_recipe({"data.source": "elsewhere.jsonl"})
        await screen.sees("run name  run")
        await palette(screen, "Recipe: demo")
        await app.action_quit()
    async with opened(tmp_path) as screen:
        app = screen.app
        app.set_recipe({"model.source": "Qwen/Qwen3-0.6B"})
        assert app.session.recipe.output.name == "run", "also in the next terminal"
        await screen.tab("train")
        await screen.press("N", *["backspace"] * 3, *"my run", "enter")
        await screen.is_asked("Use letters, digits")
        await screen.press(*["backspace"] * 4, *"_pirate", "enter")
        await screen.sees("run name  my_pirate")
        app.set_recipe({"model.source": "Qwen/Qwen3-1.7B", "data.source": "third.jsonl"})
        await screen.press("enter")
        await screen.until(lambda: screen.engine.run is not None, "the run")
        assert screen.engine.run.id == "my_pirate-01"  # type: ignore[union-attr]
