"""Runs: the history from the journals, one run opened, its recipe and its adapter used."""

import asyncio
from functools import partial
from pathlib import Path

from screens.charts.loss_chart import LossChart
from screens.chat.pane import ChatPane
from screens.runs.pane import RunsPane
from screens.runs.table import RunTable
from screens.train.pane import TrainPane
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

at_runs = partial(opened, tab="runs")

GIB = 2**30


def trained(root: Path, recipe: Recipe | None = None, *, end: str = "finished") -> ScriptedEngine:
    """A home with one run of three steps that ended so."""
    engine = ScriptedEngine(Home(root))
    again(engine, recipe or Recipe(), end)
    return engine


def again(engine: ScriptedEngine, recipe: Recipe, end: str = "finished") -> None:
    run = engine.begin(recipe, max_steps=3)
    engine.phase("training", 0.0, max_steps=3)
    engine.evaluated(0, 3.0, 20.1)
    for step in (1, 2, 3):
        engine.step(step, 3.0 - step / 2)
    if end == "error":
        engine.fail("CUDA ran out of memory.", "Halve the micro-batch.")
    elif end:
        engine.evaluated(3, 1.0, 2.7)
        engine.finish(end, step=3)
        (run.adapter / "adapter_config.json").write_text("{}")


async def history(screen: Opened, runs: int) -> RunsPane:
    pane = await screen.tab("runs")
    assert isinstance(pane, RunsPane)
    await screen.until(lambda: pane.query_one(RunTable).row_count == runs, "the history")
    await screen.pilot.pause()
    return pane


async def test_an_empty_history_names_the_next_key(tmp_path: Path) -> None:
    async with at_runs(tmp_path, size=NARROW) as screen:
        await history(screen, 0)
        await screen.until(lambda: "No runs yet. Press 5" in screen.words, "what to do")


async def test_a_line_tells_what_the_journal_says(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    again(engine, Recipe(), "error")
    async with at_runs(tmp_path, size=NARROW, engine=engine) as screen:
        await history(screen, 2)
        lines = {line.split()[2]: line for line in screen.words.splitlines() if "run-0" in line}
        assert lines["run-01"].split()[:7] == ["●", "finished", "run-01", "3/3", "1.5", "20.1", "→"]
        assert lines["run-02"].split()[:5] == ["●", "failed", "run-02", "3/3", "1.5"]
        assert list(lines) == ["run-02", "run-01"]
        await screen.sees("CUDA ran out of memory.")


async def test_enter_opens_a_run_with_curve_figures_and_recipe(tmp_path: Path) -> None:
    async with at_runs(tmp_path, size=WIDE, engine=trained(tmp_path)) as screen:
        pane = await history(screen, 1)
        await screen.press("enter")
        await screen.until(lambda: "train 1.5" in screen.words, "its curve")
        await screen.sees("20.1 → 2.7")
        await screen.sees("source: HuggingFaceTB/SmolLM2-135M-Instruct")
        assert pane.query_one(LossChart).region.area > 0
        await screen.press("escape")
        await screen.until(lambda: screen.app.focused is pane.query_one(RunTable), "back in the history")
        await screen.until(lambda: "train 1.5" not in screen.words, "as it should stand")


async def test_a_run_shows_how_far_its_predicted_peak_was_off(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=1)
    terms = {"weights": 8 * GIB, "saved_activations": 3 * GIB, "cuda_context": GIB // 2}
    predicted = {"allocated_bytes": 11 * GIB, "reserved_bytes": 12 * GIB, "terms": terms, "method": "trace"}
    engine.phase("preparing", predicted=predicted)
    engine.step(1, 2.0, vram={"allocated": 8 * GIB, "reserved": 10 * GIB, "peak": 10 * GIB})
    engine.finish(measured={"allocated": 10 * GIB, "reserved": 10 * GIB, "resting": 8 * GIB, "nvml": None})
    async with at_runs(tmp_path, size=WIDE, engine=engine) as screen:
        await history(screen, 1)
        await screen.press("enter")
        await screen.until(lambda: "11.0 GiB (+10.0%)" in screen.words, "the difference")
        await screen.sees("suspect: saved activations")


async def test_one_key_lets_a_run_go_on_and_shows_it_on_train(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    again(engine, Recipe(), "error")
    failed = engine.run
    assert failed is not None
    async with at_runs(tmp_path, size=NARROW, engine=engine) as screen:
        await history(screen, 2)
        await screen.sees("CUDA ran out of memory. · g resume")
        await screen.press("g")
        await screen.until(lambda: isinstance(screen.app.pane_in_front, TrainPane), "Train")
        await screen.until(lambda: engine.asked == ["ensure", f"resume {failed.id}"], "it is resumed")
        engine.goes_on(2, "checkpoint-2")
        engine.phase("training", 0.6, max_steps=3)
        engine.step(3, 1.25)
        await screen.sees("step 3/3")
        await screen.until(lambda: "The run failed" not in screen.words, "what ended it then is gone")
        engine.finish(step=3)
        await screen.sees("finished")
        await history(screen, 2)
        await screen.until(lambda: screen.words.count("finished") == 2, "and in the history")


async def test_a_run_that_ended_well_or_was_discarded_does_not_go_on(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    again(engine, Recipe(), "")
    engine.finish("discarded", step=3)
    async with at_runs(tmp_path, engine=engine) as screen:
        await history(screen, 2)
        for _ in range(2):
            await screen.press("g")
            assert isinstance(screen.app.pane_in_front, RunsPane)
            await screen.press("down")
        assert engine.asked == []


async def test_the_replies_of_a_run_can_be_read_later(tmp_path: Path) -> None:
    engine = trained(tmp_path, end="")
    engine.sample(3, [("Who sails her?", "Aye, the mate.")])
    engine.evaluated(3, 1.0, 2.7, best=True)
    engine.finish(step=3)
    async with at_runs(tmp_path, size=WIDE, engine=engine) as screen:
        await history(screen, 1)
        await screen.press("enter")
        await screen.sees("1 at step 3")
        await screen.sees("from step 3")
        await screen.press("v")
        await screen.sees("Aye, the mate.")


async def test_its_recipe_is_taken_in_hand_with_its_linked_alpha(tmp_path: Path) -> None:
    recipe = edit(Recipe(), {"adapter.r": 64, "data.max_length": 128})
    async with at_runs(tmp_path, engine=trained(tmp_path, recipe)) as screen:
        await history(screen, 1)
        await screen.press("r")
        assert screen.app.session.recipe == recipe
        assert screen.app.session.recipe.adapter.alpha_is_linked
        await screen.until(lambda: "r 64" in screen.words.splitlines()[0], "as it should stand")


async def test_a_recipe_that_was_changed_into_nonsense_is_told(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    assert engine.run is not None
    engine.run.recipe_file.write_text("adapter: {r: -1}")
    async with at_runs(tmp_path, engine=engine) as screen:
        await history(screen, 1)
        before = screen.app.session.recipe
        await screen.press("r")
        await screen.until(lambda: "adapter.r: got -1" in screen.words, "the mistake")
        assert screen.app.session.recipe == before


async def test_chat_with_it_and_not_with_one_that_kept_nothing(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    again(engine, Recipe(), "error")
    async with at_runs(tmp_path, engine=engine) as screen:
        await history(screen, 2)
        await screen.press("c")
        assert isinstance(screen.app.pane_in_front, RunsPane)
        await screen.press("down", "c")
        await screen.until(lambda: isinstance(screen.app.pane_in_front, ChatPane), "the chat")
        await screen.until(lambda: "chatting with run-01" in screen.words, "with that run")


async def test_a_live_run_moves_on_in_its_line_and_in_its_page(tmp_path: Path) -> None:
    engine = trained(tmp_path, end="")
    async with at_runs(tmp_path, engine=engine) as screen:
        await history(screen, 1)
        await screen.until(lambda: "running" in screen.words and "3/3" in screen.words, "its line")
        engine.step(2, 1.25)
        await screen.until(lambda: "2/3" in screen.words and "1.25" in screen.words, "one step more")
        await screen.press("enter")
        await screen.until(lambda: "train 1.25" in screen.words, "its page")
        engine.step(3, 1.125)
        await screen.until(lambda: "train 1.125" in screen.words, "one step more on its page")
        engine.finish(step=3)
        await screen.press("escape")
        await screen.until(lambda: "finished" in screen.words, "its end in the history")


async def test_a_damaged_journal_does_not_hide_the_others(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    again(engine, Recipe())
    assert engine.run is not None
    engine.run.journal.write_bytes(b'\x00\xff{"event": \n[1, 2]\nnull\n')
    async with at_runs(tmp_path, engine=engine) as screen:
        await history(screen, 2)
        await screen.sees("new")
        await screen.sees("finished")


async def test_a_big_history_does_not_hold_the_event_loop(tmp_path: Path) -> None:
    engine = trained(tmp_path)
    assert engine.run is not None
    journal = engine.run.journal.read_bytes()
    recipe = engine.run.recipe_file.read_bytes()
    for number in range(2, 402):
        folder = engine.home.runs / f"run-{number:03d}"
        folder.mkdir()
        (folder / "recipe.yaml").write_bytes(recipe)
        (folder / "journal.jsonl").write_bytes(journal * 3)
    async with opened(tmp_path, engine=engine) as screen:
        counts: list[int] = []

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.001)
                counts.extend(table.row_count for table in screen.app.query(RunTable))

        watcher = asyncio.create_task(watch())
        await history(screen, 401)
        watcher.cancel()
        assert len(set(counts)) >= 3, "the lines come a batch at a time"
