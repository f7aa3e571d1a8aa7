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
        await screen.sees("needs an unquantised base")
