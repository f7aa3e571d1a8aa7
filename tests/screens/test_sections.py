"""Every setting has a field: the sections of the form, their folding, and the way to a setting by its name."""

from pathlib import Path

import pytest

from screens.adapter.fields import form
from screens.data.fields import data_settings
from screens.forms.any_setting import any_setting
from screens.forms.places import tab_of
from screens.forms.row import SettingRow
from screens.forms.sections import SectionedForm
from tests.screens.piloting import NARROW, Opened, opened
from workbench.recipe.schema import Recipe, known_paths
from workbench.recipe.text import RecipeError, edit

# Settings without a field, and where they are set.
ELSEWHERE = {"model.source": "models"}


def row(screen: Opened, name: str) -> SettingRow:
    return screen.app.query_one(f"#{name}", SettingRow)


def test_every_setting_has_a_field_or_a_place_elsewhere() -> None:
    adapter = [path for group in form() for spec in group.settings for path in (spec.path, *spec.also)]
    data = [spec.path for spec in data_settings()]
    assert {*adapter, *data, *ELSEWHERE} == set(known_paths())
    for path in known_paths():
        place = {"adapter": adapter, "data": data, "models": list(ELSEWHERE)}[tab_of(path)]
        assert path in place
    labels = [spec.label for group in form() for spec in group.settings]
    assert len(labels) == len(set(labels))
    assert max(map(len, labels)) <= 16


def test_every_field_shows_what_it_is_given() -> None:
    given = {
        "adapter.rank_pattern": ("q_proj=8, layers.3.*=4", {"q_proj": 8, "layers.3.*": 4}),
        "adapter.alpha_pattern": ("{v_proj: 16}", {"v_proj": 16}),
        "data.ignore": ("a, b", ["a", "b"]),
        "data.columns": ("prompt=title", {"prompt": "title"}),
        "output.dir": ("/runs", "/runs"),
        "output.name": (" pirate ", "pirate"),
        "model.revision": ("v1", "v1"),
        "training.save_total_limit": ("5", 5),
        "training.early_stopping_min_delta": ("0.01", 0.01),
    }
    for path, (typed, value) in given.items():
        spec = any_setting(path, "x")
        assert spec.parse is not None
        recipe = edit(Recipe(), spec.parse(typed))
        assert (recipe.get(path), spec.is_default(recipe)) == (value, False), path
        assert edit(Recipe(), spec.parse(spec.value(recipe))) == recipe, path
        assert spec.is_default(Recipe()), path
    for path in ("output.dir", "model.revision", "adapter.rank_pattern"):
        parse = any_setting(path, "x").parse
        assert parse is not None
        assert edit(Recipe(), parse("")).get(path) == Recipe().get(path)
    parse = any_setting("adapter.rank_pattern", "x").parse
    assert parse is not None
    for wrong in ("q_proj=many", "q_proj"):
        with pytest.raises(RecipeError, match=r"rank_pattern.*whole numbers"):
            edit(Recipe(), parse(wrong))


async def test_sections_fold_and_unfold_under_the_cursor(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        settings = (await screen.tab("adapter")).query_one(SectionedForm)
        await screen.press("end")
        await screen.sees("❯ Model and output  7 settings")
        assert not row(screen, "run-name").display
        await screen.press("enter", "end", "up", "enter", *"pirate", "enter")
        assert screen.app.session.recipe.output.name == "pirate"
        await screen.sees("•run name")
        await screen.press("z")
        await screen.sees("❯ Model and output  7 settings, • 1 changed")
        assert screen.app.focused is settings.lines[-1]
        # Keys that arrive together: unfold, the first setting, its value.
        await screen.burst("up", "up", "enter", "right", "down", "down", "left")
        training = screen.app.session.recipe.training
        assert (training.eval_steps, training.save_steps) == (10, 50)
        await screen.sees("❯•save every")


async def test_page_keys_move_by_section(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.burst("pagedown")
        assert row(screen, "base").has_focus
        await screen.burst("down", "down", "pageup")
        assert row(screen, "base").has_focus, "the first of its own section"
        await screen.burst("pageup")
        assert row(screen, "rank-r").has_focus
        below = [group.title for group in form()].index("Evaluation and checkpoints")
        await screen.burst("pageup", *["pagedown"] * below)
        await screen.sees("❯ Evaluation and checkpoints")
        await screen.burst(*["pagedown"] * 9)
        await screen.sees("❯ Model and output")


async def test_a_setting_is_found_by_name_or_help_on_whichever_tab(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.press("slash", *"early")
        await screen.sees("Early stopping after this many evaluations")
        await screen.press("enter")
        assert row(screen, "early-stopping").has_focus
        await screen.press("3")
        assert screen.app.session.recipe.training.early_stopping_patience == 3
        await screen.press("enter", "slash", *"system prompt", "enter")
        await screen.until(lambda: screen.app.pane_in_front.id == "data", "the tab of the setting")  # type: ignore[union-attr]
        focused = screen.app.focused
        assert isinstance(focused, SettingRow)
        assert focused.spec.path == "data.system"
        await screen.tab("adapter")
        await screen.press("slash", *"nothing like it", "enter", "escape")
        assert row(screen, "early-stopping").has_focus


async def test_folded_settings_cost_a_key_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The widgets are there from the start, and a key neither mounts, nor updates, nor lays out folded ones."""
    shown: list[str] = []
    show = SettingRow.show
    monkeypatch.setattr(SettingRow, "show", lambda one, *rest: (shown.append(one.spec.path), show(one, *rest)))
    async with opened(tmp_path) as screen:
        pane = await screen.tab("adapter")
        rows = list(pane.query(SettingRow))
        await screen.until(lambda: "adapter.r" in shown, "the form")
        shown.clear()
        await screen.press("right")
        await screen.until(lambda: "adapter.r" in shown, "the key")
        assert "training.eval_steps" not in shown
        assert not row(screen, "evaluate-every").region
        assert list(pane.query(SettingRow)) == rows
