"""Esc and the focus: wherever one is, the arrows move something, and the tabs' keys work."""

from pathlib import Path

import pytest
from textual.widgets import Input

from screens.architecture.module_tree import ModuleTree
from screens.forms.form import SettingForm
from screens.models.pane import ModelsPane
from screens.models.table import ModelTable
from tests.screens.piloting import NARROW, Opened, opened


async def with_models(screen: Opened) -> ModelTable:
    table = screen.app.query_one(ModelTable)
    await screen.until(lambda: table.row_count > 5, "the list of models")
    return table


async def test_esc_closes_the_search_of_models_then_clears_it_and_the_arrows_move(tmp_path: Path) -> None:
    async with opened(tmp_path, size=NARROW) as screen:
        table, field = await with_models(screen), screen.app.query_one(Input)
        count = table.row_count
        await screen.press("slash", *"qwen")
        found = table.row_count
        assert found < count
        await screen.press("escape")
        assert (screen.app.focused, field.value, table.row_count) == (table, "qwen", found)
        await screen.press("down", "down")
        assert table.cursor_row == 2
        chosen = screen.app.query_one(ModelsPane)._selected_row
        await screen.press("escape")
        assert (screen.app.focused, field.value, table.row_count) == (table, "", count)
        assert screen.app.query_one(ModelsPane)._selected_row == chosen, "the cursor stays on its model"
        before = table.cursor_row
        await screen.press("escape", "up")
        assert (screen.app.focused, table.cursor_row) == (table, before - 1)


async def test_letters_and_digits_that_arrive_together_are_all_searched_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        table = await with_models(screen)
        await screen.burst(*"qwen3")
        assert screen.app.query_one(Input).value == "qwen3"
        assert screen.app.pane_in_front.id == "models"  # type: ignore[union-attr]
        assert table.row_count


async def test_esc_on_architecture_leaves_the_arrows_on_the_tree(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
        pane = await screen.tab("architecture")
        tree = pane.query_one(ModuleTree)
        for keys in (("escape",), ("slash", *"v_proj", "escape"), ("slash", *"mlp", "enter", "escape", "escape")):
            await screen.press(*keys)
            assert screen.app.focused is tree
            assert not pane.query_one(Input).display
            line = tree.cursor_line
            await screen.press("down")
            assert tree.cursor_line == line + 1
            await screen.press("home")


@pytest.mark.parametrize("tab", ["adapter", "data"])
async def test_esc_on_a_form_leaves_the_arrows_on_its_settings(tmp_path: Path, tab: str) -> None:
    async with opened(tmp_path) as screen:
        form = (await screen.tab(tab)).query_one(SettingForm)
        await screen.press("down", "escape", "escape")
        assert screen.app.focused is form.rows[1]
        await screen.press("down")
        assert screen.app.focused is form.rows[2]


async def test_a_click_beside_the_list_takes_no_cursor_away(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        table = await with_models(screen)
        await screen.pilot.click("#models-hint")
        await screen.press("down")
        assert (screen.app.focused, table.cursor_row) == (table, 1)


async def test_a_tab_with_nothing_to_move_in_has_its_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        for tab in ("runs", "train", "chat", "architecture"):
            pane = await screen.tab(tab)
            await screen.press("escape")
            assert screen.app.focused is not None
            assert pane in screen.app.focused.ancestors_with_self


async def test_what_arrives_with_the_key_that_opens_a_field_is_typed_into_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.until(lambda: screen.app.session.skeleton is not None, "the module tree")
        pane = await screen.tab("architecture")
        before = screen.app.session.recipe
        await screen.burst("slash", *"lla", "underscore", *"3")
        assert pane.query_one(Input).value == "lla_3"
        assert screen.app.pane_in_front is pane
        assert screen.app.session.recipe is before, "l and a are keys of the tree"
