"""The recipe as YAML: what it shows, its mistakes at their lines, and what it is compared with."""

import sys
from pathlib import Path

import pytest

from bench.terminal import Terminal
from screens.dialogs.recipe_text import RecipeText, RecipeTextScreen
from screens.dialogs.search_dialog import Entry, found
from tests.runs.told import finished
from tests.screens.piloting import NARROW, Opened, opened
from workbench.recipe.lines import ALL_DEFAULTS, changed_yaml, check_text
from workbench.recipe.presets import load_preset
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, from_yaml, to_yaml
from workbench.storage.paths import Home
from workbench.storage.settings import read as read_settings


def test_only_what_differs_is_written_and_read_back() -> None:
    assert changed_yaml(Recipe()) == ALL_DEFAULTS
    assert from_yaml(ALL_DEFAULTS) == Recipe()
    # An alpha that is set to what it would be anyway stays set.
    set_alpha = edit(Recipe(), {"adapter.lora_alpha": 32, "training.learning_rate": 1e-4})
    assert changed_yaml(set_alpha) == "adapter:\n  lora_alpha: 32\ntraining:\n  learning_rate: 0.0001\n"
    # A section that a recipe leaves out while it is at its defaults.
    other = edit(Recipe(), {"objective.kind": "dpo", "objective.beta": 0.2})
    for recipe in (set_alpha, other, load_preset("mistral-quotes"), load_preset("demo")):
        assert from_yaml(changed_yaml(recipe)) == recipe
        assert from_yaml(changed_yaml(recipe)).adapter.alpha_is_linked == recipe.adapter.alpha_is_linked


def test_each_mistake_has_its_line() -> None:
    text = "model:\n  source: m\nadapter:\n  r: 0\n\n  alpha: 3\nbogus: {}\ntraining: 7\n"
    lines = {mistake.problem.path: mistake.line for mistake in check_text(text).mistakes}
    assert lines == {"adapter.r": 4, "adapter.alpha": 6, "bogus": 7, "training": 8}
    (syntax,) = check_text("adapter:\n  r: [1\nmodel:\n").mistakes
    assert (syntax.line, str(syntax)[:7]) == (3, "line 3,")
    (double,) = check_text("adapter:\n  r: 1\n  r: 2\n").mistakes
    assert "duplicate key 'r'" in str(double)
    (kind,) = check_text("- a list").mistakes
    assert kind.line == 1
    excluded = check_text("quantization:\n  method: nf4\nadapter:\n  r: 4\n  init_lora_weights: pissa\n").mistakes
    assert [mistake.line for mistake in excluded] == [5]
    assert check_text("adapter: {r: 4}").recipe == edit(Recipe(), {"adapter.r": 4})


def test_a_list_is_searched_by_label_first_and_by_every_word() -> None:
    entries = [Entry("a", "weight decay", words="rank of nothing"), Entry("b", "rank r"), Entry("c", "base", "a rank")]
    assert [entry.value for entry in found(entries, "rank")] == ["b", "a", "c"]
    assert [entry.value for entry in found(entries, "RANK base")] == ["c"]
    assert [entry.value for entry in found(entries, " ")] == ["a", "b", "c"]


def text_of(screen: Opened) -> str:
    return screen.app.screen.query_one(RecipeText).text


async def test_the_text_is_edited_by_keys_and_is_one_step_of_undo(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        session = screen.app.session
        await screen.tab("adapter")
        screen.app.set_recipe({"adapter.r": 8})
        await screen.press("Y")
        await screen.sees("what differs from the defaults")
        assert text_of(screen) == "adapter:\n  r: 8\n"
        await screen.sees("The same as the current recipe.")
        # A mistake is listed with its line; Ctrl+S goes there and changes nothing.
        await screen.press("down", "end", "backspace", "0", "up", "ctrl+s")
        await screen.sees("line 2: adapter.r: got 0; expected a whole number from 1 to 8192.")
        area = screen.app.screen.query_one(RecipeText)
        assert (area.cursor_location, session.recipe.adapter.r) == ((1, 0), 8)
        assert area.get_line(1).spans
        assert not area.get_line(0).spans
        await screen.press("ctrl+t")
        await screen.is_told("Correct the mistakes first.")
        await screen.press("end", "backspace", "6", "4")
        await screen.sees("adapter.r")
        await screen.sees("8 → 64")
        assert not area.get_line(1).spans
        # All settings and back: the same text.
        await screen.press("ctrl+t")
        assert text_of(screen) == to_yaml(edit(session.recipe, {"adapter.r": 64}))
        await screen.press("ctrl+t")
        assert text_of(screen) == "adapter:\n  r: 64\n"
        await screen.press("ctrl+s")
        await screen.until(lambda: not isinstance(screen.app.screen, RecipeTextScreen), "the text closed")
        assert session.recipe.adapter.r == 64
        await screen.press("ctrl+z")
        assert session.recipe.adapter.r == 8


async def test_an_edited_text_is_not_lost_by_one_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.press("Y", "#", "escape")
        await screen.is_asked("The recipe stays as it is.")
        await screen.press("n")
        assert text_of(screen) == f"#{ALL_DEFAULTS}"
        await screen.press("escape", "y")
        await screen.until(lambda: not isinstance(screen.app.screen, RecipeTextScreen), "the text closed")
        await screen.press("Y", "ctrl+t", "escape")
        await screen.until(lambda: not isinstance(screen.app.screen, RecipeTextScreen), "closed without a question")
        assert screen.app.session.recipe == Recipe()
        # In a text field it is a letter.
        await screen.tab("models")
        await screen.press("slash", "Y")
        assert not isinstance(screen.app.screen, RecipeTextScreen)


async def test_it_is_compared_with_a_preset_or_a_run(tmp_path: Path) -> None:
    run = finished(Home(tmp_path), "sample").id
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.press("Y", "ctrl+l")
        await screen.sees("Compare with")
        await screen.press(*"llama2", "space", *"chat", "enter")
        await screen.sees("of its settings differ from preset llama2-chat-lora:")
        await screen.sees("none → nf4")
        await screen.press("ctrl+l", *run)
        await screen.sees(f"run  {run}")
        await screen.press("enter")
        await screen.sees(f"run {run}")
        # The comparison follows the text.
        await screen.press("ctrl+a", *"adapter", "colon", "space", *"{r", "colon", *" 77}", "enter")
        await screen.sees("→ 77")


async def test_an_editor_that_is_missing_or_fails_leaves_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as screen:
        for value, words in (("'", "$EDITOR cannot be read"), ("true", "This terminal cannot be given to an editor.")):
            monkeypatch.delenv("VISUAL", raising=False)
            monkeypatch.setenv("EDITOR", value)
            await screen.tab("adapter")
            await screen.press("Y", "ctrl+g")
            await screen.is_asked(words)
            await screen.press("escape")
            assert text_of(screen) == ALL_DEFAULTS
            await screen.press("escape")


_EDITOR = """\
import pathlib, sys
file = pathlib.Path(sys.argv[-1])
assert sys.argv[1] == "--wait" and file.suffix == ".yaml" and "Every setting" in file.read_text()
file.write_text("adapter: {r: 123}\\n")
print("the editor was here")
"""


def test_the_text_is_edited_in_the_editor_of_a_real_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "editor.py").write_text(_EDITOR)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} '{tmp_path / 'editor.py'}' --wait")
    home = tmp_path / "home"
    command = [sys.executable, "-m", "workbench.cli", "--home", str(home)]
    with Terminal(command) as terminal:
        terminal.wait_for("Enter, then 5", seconds=60)
        terminal.send("3")
        terminal.wait_for("rank r", seconds=60)
        terminal.send("Y")
        terminal.wait_for("in $EDITOR", seconds=30)
        terminal.send("\x07")
        terminal.wait_for("the editor was here", seconds=30)
        terminal.wait_for("16 → 123", seconds=30)
        terminal.send("\x13")
        terminal.wait_for("r 123", seconds=30)
        terminal.send("\x11")
        # To the end of the program, which writes its settings first.
        terminal.read(30)
    recipe = read_settings(Home(home)).recipe
    assert recipe is not None
    assert recipe["adapter"]["r"] == 123  # type: ignore[index]
