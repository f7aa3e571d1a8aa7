"""Runs over each other: curves told apart by letters, three axes, differences only, figures side by side."""

import math
from pathlib import Path

import pytest

from screens.charts.loss_chart import LossChart
from screens.runs.compare import CompareScreen
from screens.runs.pane import RunsPane
from tests.runs.told import begin, evaluate, finished, resume, take_steps, writer_of
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from tests.screens.test_runs_pane import history
from workbench.recipe.schema import Recipe
from workbench.runs.library.naming import rename_run
from workbench.storage.paths import Home


async def compared(screen: Opened, marks: int) -> CompareScreen:
    """Mark the first runs of the history and lay them over each other."""
    await screen.press(*["space"] * marks, "o")
    await screen.until(lambda: isinstance(screen.app.screen, CompareScreen), "the comparison")
    comparison = screen.app.screen
    assert isinstance(comparison, CompareScreen)
    await screen.until(lambda: len(comparison._read) == marks, "all journals")
    await screen.pilot.pause(0.3)
    return comparison


def chart(screen: Opened) -> list[str]:
    overlay = screen.app.screen.query_one(LossChart)
    return [strip.text.rstrip() for strip in overlay.paint(*overlay.size)]


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_two_runs_are_laid_over_each_other(tmp_path: Path, size: tuple[int, int]) -> None:
    home = Home(tmp_path)
    first = finished(home, steps=40)
    finished(home, steps=60, loss=2.0, adapter={"r": 64})
    rename_run(home, first, "Low rank")
    async with opened(tmp_path, size=size) as screen:
        await history(screen, 2)
        comparison = await compared(screen, 2)
        lines = chart(screen)
        assert lines[0].endswith("A run-02 1.400   B Low rank 2.600")
        drawn = "\n".join(lines[1:-1])
        assert {letter: drawn.count(letter) > 0 for letter in "ABab"} == dict.fromkeys("ABab", True)
        assert lines[-1].split()[-1] == "60"
        if size == WIDE:
            await screen.sees("best held-out loss")
        for _ in range(3):
            await screen.press("pagedown")
        words = screen.words
        if size == NARROW:
            await screen.until(lambda: "recipe differences" in screen.words, "the differences")
            words = screen.words
        assert "Low rank" in words
        assert "adapter.r " in words
        assert "training." not in words, "what is equal is left out"
        await screen.press("escape")
        assert screen.app.screen is not comparison


async def test_the_axis_and_the_losses_are_switched_by_a_key(tmp_path: Path) -> None:
    home = Home(tmp_path)
    finished(home, steps=40)
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, range(1, 21), seconds=30.0)
        journal.write("paused", step=20, reason="Paused; model kept in memory.", release=False)
        journal.write("resumed", step=20)
        take_steps(journal, range(21, 41), seconds=30.0)
        journal.write("run_ended", reason="stopped")
    async with opened(tmp_path) as screen:
        await history(screen, 2)
        await compared(screen, 2)
        await screen.press("x")
        await screen.sees("loss over tokens")
        assert chart(screen)[-1].split()[-1] == "60k"
        await screen.press("x")
        await screen.sees("loss over training time (minutes)")
        assert chart(screen)[-1].split()[-1] == "20"
        await screen.press("l")
        await screen.sees("train loss over training time (minutes)")
        assert "b" not in "".join(chart(screen)[1:-1])
        await screen.press("l")
        await screen.sees("held-out loss over training time (minutes)")
        assert "b run-01 2.000" in chart(screen)[0], "the run without an evaluation has no curve"
        assert "A" not in "".join(chart(screen)[1:-1])
        await screen.press("x", "l")
        await screen.sees("train and held-out loss over steps")


async def test_a_live_run_grows_and_a_failed_one_says_so(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=3)
    engine.step(1, 2.5)
    engine.fail("CUDA ran out of memory.")
    engine.begin(Recipe(), max_steps=100)
    engine.step(1, 2.0)
    async with opened(tmp_path, engine=engine) as screen:
        await history(screen, 2)
        await compared(screen, 2)
        await screen.sees("failed")
        await screen.sees("running")
        assert "A run-02 2.000 " in chart(screen)[0]
        engine.step(2, 1.75)
        await screen.until(lambda: "A run-02 1.750" in chart(screen)[0], "one step more")
        await screen.sees("2/100")
        await screen.sees("The recipes are identical.")
        engine.finish(step=2)
        await screen.until(lambda: "finished" in screen.words, "its end")


async def test_six_runs_at_most_and_what_to_do_with_fewer_marks(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(7):
        finished(home, steps=5 + number)
    async with opened(tmp_path, size=NARROW) as screen:
        pane = await history(screen, 7)
        assert isinstance(pane, RunsPane)
        await screen.press("o")
        await screen.is_told("Mark two or more runs with Space")
        await screen.press("space", "o")
        await screen.until(lambda: isinstance(screen.app.screen, CompareScreen), "the marked one and the selected one")
        await screen.press("escape")
        await screen.press(*["space"] * 6, "o")
        await screen.is_told("a chart compares at most 6")
        await screen.press("up", "up", "up", "space", "o")
        await screen.until(lambda: isinstance(screen.app.screen, CompareScreen), "six of them")
        comparison = screen.app.screen
        await screen.until(lambda: len(comparison._read) == 6, "all journals")  # type: ignore[attr-defined]
        legend = " ".join(chart(screen)[:4])
        assert all(f"{letter} run-0" in legend for letter in "ABCDEF")
        colors = {curve.color for curve in screen.app.screen.query_one(LossChart)._curves}
        assert colors == set(range(6))


async def test_five_runs_are_read_in_little_place(tmp_path: Path) -> None:
    """A line for each: in columns their cells would be folded."""
    home = Home(tmp_path)
    for number in range(5):
        finished(home, steps=40 + number, adapter={"r": 8 * 2**number})
    async with opened(tmp_path, size=NARROW) as screen:
        await history(screen, 5)
        await compared(screen, 5)
        seen: list[str] = []
        for _ in range(4):
            seen += screen.words.splitlines()
            await screen.press("pagedown")
            await screen.pilot.pause(0.5)
        for number, letter in zip(range(5, 0, -1), "ABCDE", strict=True):
            of_run = [line for line in seen if f" {letter} run-0{number} " in line]
            steps = 39 + number
            for cell in (f"finished  {steps}/100 ", f" {steps * 1500:,} "):
                assert any(cell in line for line in of_run), (cell, of_run)
        # Where columns have place, they stay.
        assert any(line.split()[1:7] == ["adapter.r", "128", "64", "32", "16", "8"] for line in seen)


async def test_a_run_without_a_step_and_one_with_no_numbers(tmp_path: Path) -> None:
    home = Home(tmp_path)
    begin(home)
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, [1, 2], loss=math.nan)
        evaluate(journal, 2, 1.0)
        resume(journal, 1)
        journal.write("run_ended", reason="error")
    async with opened(tmp_path) as screen:
        await history(screen, 2)
        await compared(screen, 2)
        await screen.sees("No run has logged this loss")
        await screen.press("x", "x", "l")
        await screen.sees("failed")
        await screen.sees("new")
