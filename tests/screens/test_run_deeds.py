"""The history tidied: marks, order, filter, names, tags, the trash and back, a journal as a table."""

import csv
import os
from functools import partial
from pathlib import Path
from time import thread_time

import pytest
from textual.widgets import Input

from screens.chat.pane import ChatPane
from screens.runs.pane import RunsPane
from screens.runs.table import RunTable
from tests.runs.told import begin, finished, take_steps, writer_of
from tests.screens.piloting import NARROW, opened
from tests.screens.scripted import ScriptedEngine
from tests.screens.test_injection import HOSTILE, assert_harmless
from tests.screens.test_runs_pane import history
from workbench.recipe.schema import Recipe
from workbench.runs.folder import all_runs, find_run
from workbench.runs.library.naming import rename_run, tag_run
from workbench.storage.paths import Home

at_runs = partial(opened, tab="runs")


def three(root: Path) -> Home:
    home = Home(root)
    finished(home, "long", steps=30)
    tag_run(finished(home, "short", steps=5, loss=9.0), ["pirate"])
    finished(home, "middle", steps=10)
    return home


def shown(pane: RunsPane) -> list[str]:
    return [str(key.value) for key in pane.query_one(RunTable).rows]


async def test_it_is_sorted_by_keys_and_by_a_click_on_a_heading(tmp_path: Path) -> None:
    three(tmp_path)
    async with at_runs(tmp_path, size=NARROW) as screen:
        pane = await history(screen, 3)
        newest = ["middle-01", "short-01", "long-01"]
        assert shown(pane) == newest
        await screen.sees("started ▼")
        await screen.press("!")
        assert shown(pane) == newest[::-1]
        await screen.sees("started ▲")
        await screen.press("!")
        table = pane.query_one(RunTable)
        # State and run are as wide as their columns, with a blank on both sides.
        await screen.pilot.click(RunTable, offset=(36, 0))
        await screen.sees("steps ▼")
        assert shown(pane) == ["long-01", "middle-01", "short-01"]
        assert table.chosen is not None
        assert table.chosen.run.id == "middle-01", "the cursor stays on its run"
        await screen.pilot.click(RunTable, offset=(36, 0))
        await screen.sees("steps ▲")
        assert shown(pane) == ["short-01", "middle-01", "long-01"]
        await screen.press(">")
        await screen.sees("loss ▲")
        assert shown(pane) == ["long-01", "middle-01", "short-01"]


async def test_it_is_filtered_as_one_types_and_escape_shows_all(tmp_path: Path) -> None:
    rename_run(three(tmp_path), find_run(Home(tmp_path), "long"), "Old faithful")
    async with at_runs(tmp_path) as screen:
        pane = await history(screen, 3)
        for words, runs in (("#pir", ["short-01"]), ("FAITH", ["long-01"]), ("middle finished", ["middle-01"])):
            await screen.press("slash", *(key if key != " " else "space" for key in words))
            await screen.until(lambda runs=runs: shown(pane) == runs, words)  # type: ignore[misc]
            await screen.sees("1 of 3")
            await screen.press("enter")
            assert screen.app.focused is pane.query_one(RunTable)
            await screen.press("escape")
            await screen.until(lambda: len(shown(pane)) == 3, "all of them")
            assert not pane.query_one(Input).display
        await screen.press("slash", *"nothing", "escape")
        await screen.until(lambda: shown(pane) == [], "escape in the field leaves it, and the filter stays")
        assert screen.app.focused is pane.query_one(RunTable)
        await screen.press("escape")
        await screen.until(lambda: len(shown(pane)) == 3, "escape on the list clears it")


async def test_marks_are_seen_without_color_and_outlive_a_filter(tmp_path: Path) -> None:
    three(tmp_path)
    async with at_runs(tmp_path, size=NARROW) as screen:
        pane = await history(screen, 3)
        await screen.press("space", "space")
        await screen.sees("☑ middle-01")
        await screen.sees("2 marked, o compare")
        await screen.press("slash", *"long", "enter")
        await screen.until(lambda: shown(pane) == ["long-01"], "the filter")
        await screen.sees("2 marked")
        await screen.press("escape")
        await screen.sees("☑ short-01")
        await screen.press("escape")
        await screen.until(lambda: "☑" not in screen.words and "marked" not in screen.words, "no mark")
        await screen.press("up", "up", "up", "space", "up", "space")
        assert pane.query_one(RunTable).marked == []


async def test_a_run_gets_a_name_and_keeps_its_id(tmp_path: Path) -> None:
    home = three(tmp_path)
    async with at_runs(tmp_path) as screen:
        await history(screen, 3)
        await screen.press("N")
        await screen.sees("The id and folder stay")
        await screen.press(*"a/b", "enter")
        await screen.sees("is not a valid run name")
        for _ in range(3):
            await screen.press("backspace")
        await screen.press(*"Best", "enter")
        await screen.until(lambda: "  Best  " in screen.words and "middle-01 ·" in screen.words, "name and id")
        assert find_run(home, "Best").id == "middle-01"
        await screen.press("down", "N", *"Best", "enter")
        await screen.sees("Another run, middle-01, is already named Best")


async def test_its_name_is_what_chat_offers(tmp_path: Path) -> None:
    home = three(tmp_path)
    run = find_run(home, "middle-01")
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text("{}")
    rename_run(home, run, "Best of all")
    async with at_runs(tmp_path) as screen:
        await history(screen, 3)
        await screen.press("c")
        await screen.sees("chatting with Best of all  middle-01")
        await screen.press("c")
        await screen.sees("Best of all (middle-01)")
        await screen.press("escape", "o")
        await screen.sees("side by side Best of all (base, adapter off) · Best of all (tuned)")
        # A reply is kept under the id: the conversation goes on whatever the run is called by then.
        pane = screen.app.query_one(ChatPane)
        assert [target.who for target in pane._targets.side_by_side] == [
            "middle-01 (base, adapter off)",
            "middle-01 (tuned)",
        ]
        await screen.press("o")
        rename_run(home, run, "Second best")
        await screen.sees("chatting with Second best  middle-01")


async def test_one_run_or_the_marked_ones_are_tagged(tmp_path: Path) -> None:
    home = three(tmp_path)

    def tags() -> dict[str, tuple[str, ...]]:
        return {run.id: run.label.tags for run in all_runs(home)}

    async with at_runs(tmp_path) as screen:
        await history(screen, 3)
        await screen.press("down", "T", *"new", "enter")
        await screen.until(lambda: tags()["short-01"] == ("pirate", "new"), "one tag more")
        await screen.press("up", "space", "space", "T")
        await screen.sees("middle-01, short-01: #pirate #new")
        await screen.press(*"keep -pirate", "enter")
        await screen.until(lambda: tags()["middle-01"] == ("keep",), "the first")
        await screen.until(lambda: tags()["short-01"] == ("new", "keep"), "the second")
        await screen.sees("#new #keep")
        assert tags()["long-01"] == ()


async def test_deleting_asks_once_and_one_key_takes_it_back(tmp_path: Path) -> None:
    home = three(tmp_path)
    async with at_runs(tmp_path, size=NARROW) as screen:
        pane = await history(screen, 3)
        await screen.press("d")
        await screen.sees("Delete middle-01?")
        await screen.press("enter")
        assert len(all_runs(home)) == 3, "keeping is the first answer"
        await screen.press("space", "space", "d")
        await screen.sees("Delete middle-01, short-01?")
        await screen.press("y")
        await screen.until(lambda: shown(pane) == ["long-01"], "they are gone")
        await screen.is_told("u restores the last deletion")
        assert not pane.query_one(RunTable).marked
        assert {path.name for path in home.trash.iterdir()} == {"middle-01", "short-01"}
        await screen.press("u")
        await screen.until(lambda: len(shown(pane)) == 3, "they are back")
        assert find_run(home, "short-01").label.tags == ("pirate",)
        assert pane.check_action("undelete", ()) is False


async def test_a_run_that_is_open_is_deleted_and_leads_back_to_the_history(tmp_path: Path) -> None:
    three(tmp_path)
    async with at_runs(tmp_path) as screen:
        pane = await history(screen, 3)
        await screen.press("enter")
        await screen.until(lambda: "train 2.9" in screen.words, "its page")
        await screen.press("d", "y")
        await screen.until(lambda: shown(pane) == ["short-01", "long-01"], "it is gone")
        await screen.until(lambda: not pane.has_class("-open"), "the history")


async def test_a_live_run_is_named_but_not_deleted(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=3)
    engine.step(1, 2.0)
    async with at_runs(tmp_path, engine=engine) as screen:
        await history(screen, 1)
        await screen.press("N", *"under way", "enter")
        await screen.sees("  under way")
        engine.step(2, 1.5)
        await screen.until(lambda: "2/3" in screen.words and "  under way" in screen.words, "it goes on by its name")
        await screen.press("d", "y")
        await screen.sees("run-01 is live, so it cannot be deleted")
        await screen.press("escape")
        assert engine.run is not None
        assert engine.run.journal.is_file()
        engine.finish(step=2)


async def test_a_journal_is_written_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three(tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with at_runs(tmp_path / "home") as screen:
        await history(screen, 3)
        await screen.press("w")
        await screen.sees("One row per step")
        await screen.press("enter")
        await screen.until((tmp_path / "middle-01.csv").is_file, "the file")
        with (tmp_path / "middle-01.csv").open(newline="") as lines:
            assert len(list(csv.DictReader(lines))) == 11
        await screen.press("w", "enter")
        await screen.sees("already exists")


async def test_a_recipe_in_hand_is_a_clone_with_its_name(tmp_path: Path) -> None:
    finished(Home(tmp_path), "pirate", adapter={"r": 64})
    async with at_runs(tmp_path) as screen:
        await history(screen, 1)
        await screen.press("r")
        recipe = screen.app.session.recipe
        assert (recipe.adapter.r, recipe.output.name) == (64, "pirate")


async def test_what_another_terminal_does_is_seen(tmp_path: Path) -> None:
    home = three(tmp_path)
    async with at_runs(tmp_path) as screen:
        pane = await history(screen, 3)
        rename_run(home, find_run(home, "long-01"), "told elsewhere")
        os.rename(home.runs / "short-01", tmp_path / "away")  # noqa: PTH104
        await screen.tab("models")
        await screen.tab("runs")
        await screen.sees("told elsewhere")
        await screen.until(lambda: shown(pane) == ["middle-01", "long-01"], "one is gone")


async def test_hostile_labels_and_models(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(2):
        run = begin(home)
        with writer_of(run, HOSTILE) as journal:
            take_steps(journal, [1])
        recipe = run.recipe_file.read_text()
        run.recipe_file.write_text(recipe.replace("name: run", f"name: run\n# {number}"))
        (run.path / "label.json").write_text('{"name": "[red]x[/red]", "tags": ["[@click=app.quit]x[/]"]}')
    async with at_runs(tmp_path) as screen:
        await history(screen, 2)
        assert_harmless(screen)
        await screen.press("space", "space", "o")
        await screen.sees("results")
        assert_harmless(screen)


async def test_a_thousand_runs_are_sorted_and_filtered_while_one_types(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = finished(home, steps=3)
    journal, recipe = first.journal.read_bytes(), first.recipe_file.read_bytes()
    for number in range(2, 1001):
        folder = home.runs / f"run-{number:04d}"
        folder.mkdir()
        (folder / "recipe.yaml").write_bytes(recipe)
        (folder / "journal.jsonl").write_bytes(journal)
    async with at_runs(tmp_path) as screen:
        pane = await history(screen, 1000)
        table = pane.query_one(RunTable)
        started = thread_time()
        table.sort_by("run")
        sorting = thread_time() - started
        started = thread_time()
        table.words = "run-09"
        table.lay_out()
        filtering = thread_time() - started
        assert len(shown(pane)) == 100
        started = thread_time()
        table.words = ""
        table.lay_out()
        unfiltering = thread_time() - started
        print(f"sort {sorting:.3f} s, filter {filtering:.3f} s, all again {unfiltering:.3f} s")
        assert max(sorting, filtering, unfiltering) < 1.0
