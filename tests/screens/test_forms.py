"""The keys of a form: each counts, on the setting that has the cursor when it is pressed."""

from pathlib import Path

import pytest

from screens.forms.form import SettingForm
from screens.forms.row import SettingRow
from tests.screens.piloting import Opened, opened


def row(screen: Opened, name: str) -> SettingRow:
    return screen.app.query_one(f"#{name}", SettingRow)


@pytest.mark.parametrize("tab", ["adapter", "data"])
async def test_arrows_that_arrive_together_each_move(tmp_path: Path, tab: str) -> None:
    async with opened(tmp_path) as screen:
        form = (await screen.tab(tab)).query_one(SettingForm)
        await screen.burst("down", "down", "down", "down")
        assert screen.app.focused is form.rows[4]
        await screen.burst("up", "up")
        assert screen.app.focused is form.rows[2] is form.selected
        await screen.burst("end", "up", "home", "down")
        assert screen.app.focused is form.rows[1]


async def test_values_that_are_changed_together_with_moves_are_those_of_the_right_settings(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        # The keys after the digit are for the tab that it opens.
        await screen.burst("3", "right", "right", "down", "down", "right", "up", "up", "shift+right")
        adapter = screen.app.session.recipe.adapter
        assert (adapter.r, adapter.lora_alpha, adapter.lora_dropout) == (65, 130, 0.1)
        await screen.sees("65")


async def test_a_refusal_among_keys_that_arrive_together_is_seen(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.burst("down", "down", "down", "down", "right", "right", "right")
        assert screen.app.session.recipe.adapter.use_dora
        await screen.sees("needs an unquantized base")


async def test_digits_on_a_number_are_typed_into_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        await screen.press("2", "4")
        assert (screen.app.session.recipe.adapter.r, row(screen, "rank-r").is_editing) == (24, True)
        await screen.press("enter", "down", "5", "escape")
        adapter = screen.app.session.recipe.adapter
        assert (adapter.r, adapter.lora_alpha, adapter.alpha_is_linked) == (24, 48, True), "Esc takes it back"
        await screen.burst("down", "0", "full_stop", *"15", "enter", "up")
        assert screen.app.session.recipe.adapter.lora_dropout == 0.15
        assert screen.app.focused is row(screen, "lora-alpha")
        await screen.burst("enter", *"50", "enter")
        assert screen.app.session.recipe.adapter.lora_alpha == 50, "the old value is typed over"
        row(screen, "layers").focus()
        await screen.press("8", "minus", *"15", "enter")
        assert screen.app.session.recipe.adapter.layers_to_transform == list(range(8, 16))
        assert screen.app.pane_in_front.id == "adapter"  # type: ignore[union-attr]
        # Where no number is typed, a digit still opens its tab.
        row(screen, "variant").focus()
        await screen.press("4")
        assert screen.app.pane_in_front.id == "data"  # type: ignore[union-attr]


async def test_enter_on_a_choice_shows_the_choices_and_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await screen.tab("adapter")
        before = screen.app.session.recipe
        for name, values in (("schedule", "cosine"), ("optimizer", "adamw"), ("variant", "rsLoRA"), ("base", "fp4")):
            row(screen, name).focus()
            await screen.press("enter")
            await screen.until(lambda: screen.app.screen.query("PickDialog OptionList"), "a list")
            await screen.sees(values)
            await screen.press("escape")
            assert screen.app.session.recipe is before
            assert screen.app.focused is row(screen, name)
        await screen.press("enter", "down", "enter")
        assert screen.app.session.recipe.quantization.method == "fp4"
        assert screen.app.focused is row(screen, "base")
        # A switch has two values, both in view: Enter is Switch there.
        row(screen, "double-quant").focus()
        await screen.sees("Switch")
        await screen.press("enter")
        assert not screen.app.session.recipe.quantization.double_quant
