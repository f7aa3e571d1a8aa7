"""A run is called in titles as people call it, also when it is renamed while it is shown."""

from pathlib import Path

import pytest

from screens.run_names import RunNames, titled
from screens.shell.run_bar import RunBar
from screens.train.pane import TrainPane
from tests.screens.piloting import NARROW, WIDE, opened
from workbench.recipe.schema import Recipe
from workbench.runs.folder import find_run
from workbench.runs.label import Label, write_label
from workbench.runs.library.naming import rename_run
from workbench.storage.paths import Home

LONGEST = "A name that goes on and on and on until no more signs are let in"


def test_the_id_stands_beside_a_name_where_there_is_room() -> None:
    assert titled("Low rank", "pirate-03").plain == "Low rank  pirate-03"
    assert titled("pirate-03", "pirate-03").plain == "pirate-03"
    assert titled("Low rank", "pirate-03", most=18).plain == "Low rank"
    assert titled("Low rank", "pirate-03", most=6).plain == "Low r…"
    assert titled("[red]x[/red]\x1b[2J", "[b]").plain.startswith("[red]x[/red]")
    assert "\x1b" not in titled("\x1b[2Jx", "y").plain


def test_names_are_read_again_when_they_are_looked_at(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = home.runs / "run-01"
    folder.mkdir(parents=True)
    names = RunNames(home)
    assert not names.any_asked_for
    assert names.of("run-01") == names.of(folder) == "run-01"
    assert not names.look()
    write_label(folder, Label("Low rank"))
    assert names.of("run-01") == "run-01"
    assert names.look()
    assert names.of("run-01") == "Low rank"
    write_label(folder, Label())
    assert names.look()
    assert names.of(folder) == "run-01"


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_live_run_is_called_by_its_name(tmp_path: Path, size: tuple[int, int]) -> None:
    home = Home(tmp_path)
    async with opened(tmp_path, size=size) as screen:
        screen.engine.begin(Recipe(), max_steps=200)
        await screen.tab("train")
        screen.engine.step(50, 1.25)
        bar = screen.app.query_one(RunBar)
        await screen.until(lambda: "run run-01 " in bar.text.plain, "its id, while it has no name")
        await screen.sees("─ run-01 ─" if size == WIDE else "─ run-01 · loss over steps")

        rename_run(home, find_run(home, "run-01"), "Low rank")
        await screen.until(lambda: "run Low rank" in bar.text.plain, "its name in the run bar")
        await screen.sees("─ Low rank  run-01 ")
        assert "Low rank  run-01" in bar.text.plain

        rename_run(home, find_run(home, "run-01"), LONGEST)
        await screen.until(lambda: "run A name that goes" in bar.text.plain, "the longest name")
        await screen.until(lambda: any("run A name that goes" in line for line in screen.words.splitlines()), "painted")
        line = next(line for line in screen.words.splitlines() if "run A name that goes" in line)
        assert "step 50/200" in line, "a long name leaves the figures their room"
        assert "ETA 01:15" in line
        await screen.press("ctrl+q")
        await screen.sees("is still training")
        await screen.press("n")
        assert isinstance(screen.app.pane_in_front, TrainPane)
