"""Runs whose journal takes long to read: shown at a glance, marked as such, then exactly."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from screens.runs import history as run_history
from screens.runs.pane import RunsPane
from screens.runs.table import RunTable
from screens.train.pane import TrainPane
from tests.journals import JournalWriter
from tests.runs import journals
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.runs import journal_sample, live_run
from workbench.runs.folder import create_run
from workbench.storage.paths import Home


@pytest.fixture
def reading_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A journal of 20 kB is a long one, of which no more than a glance is had before this is set."""
    go = threading.Event()
    for name, small in (("LONG", 20_000), ("_HEAD", 6_000), ("_TAIL", 16_000)):
        monkeypatch.setattr(journal_sample, name, small)

    def wait_in(module: object, name: str) -> None:
        work = getattr(module, name)

        def waits(*arguments: object, **more: object) -> object:
            if not more.get("quick"):
                assert go.wait(20)
            return work(*arguments, **more)

        monkeypatch.setattr(module, name, waits)

    wait_in(live_run, "_read_up_to")
    wait_in(run_history, "summarise")
    yield go
    go.set()


def home_with(root: Path, *kinds: Callable[[JournalWriter], None]) -> Home:
    """A home with a run of each kind."""
    home = Home(root)
    for kind in kinds:
        with JournalWriter(create_run(home, Recipe()).journal) as journal:
            kind(journal)
    return home


async def history(screen: Opened, count: int) -> RunsPane:
    pane = await screen.tab("runs")
    assert isinstance(pane, RunsPane)
    await screen.until(lambda: pane.query_one(RunTable).row_count == count, "the history")
    await screen.pilot.pause()
    return pane


async def test_a_run_of_the_history(tmp_path: Path, reading_on: threading.Event) -> None:
    home_with(tmp_path, journals.resumed_and_finished, journals.interrupted)
    async with opened(tmp_path, size=NARROW) as screen:
        pane = await history(screen, 2)
        lines = [line.split() for line in screen.words.splitlines() if "run-0" in line]
        assert lines[0][:4] == ["reading", "run-02", "800/1000", "1.222"]
        assert lines[1][:6] == ["●", "finished", "run-01", "1000", "1.182", "6"]
        await screen.press("down", "enter")
        await screen.sees("loss over steps · ≈ reading 0%")
        await screen.sees("train 1.182")
        assert pane.shown_run is not None
        assert 100 < pane.shown_run.replay.curves.train.count < 1000
        reading_on.set()
        await screen.until(lambda: "reading" not in screen.words, "all is read")
        await screen.sees("loss over steps ─")
        assert pane.shown_run.replay.curves.train.count == 1000
        await screen.press("escape")
        await screen.sees("interrupted")


async def test_whoever_leaves_it_does_not_have_it_read(tmp_path: Path, reading_on: threading.Event) -> None:
    home_with(tmp_path, journals.finished)
    async with opened(tmp_path, size=WIDE) as screen:
        pane = await history(screen, 1)
        await screen.press("enter")
        await screen.sees("reading 0%")
        left = pane.shown_run
        await screen.press("escape")
        reading_on.set()
        await screen.until(lambda: not any(w.group == "journal" and w.is_running for w in screen.app.workers), "end")
        assert left is not None
        assert left.replay.is_partial
        await screen.press("enter")
        await screen.sees("loss over steps ─")


async def test_a_live_run_is_taken_up_and_followed_while_its_past_is_read(
    tmp_path: Path, reading_on: threading.Event
) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=1000)
    engine.phase("training", 0.0, max_steps=1000)
    engine.evaluated(0, 3.0, 20.1)
    for step in range(1, 401):
        engine.step(step, 3 - step / 200)
        if step == 100:
            engine.evaluated(100, 2.5, 12.2)
    async with opened(tmp_path, size=WIDE, engine=engine) as screen:
        pane = await screen.tab("train")
        assert isinstance(pane, TrainPane)
        await screen.sees("≈ reading 0%")
        await screen.sees("step 400/1000")
        assert "→ 12.20" not in screen.words
        engine.step(401, 0.75)
        await screen.until(
            lambda: pane.shown_run is not None and pane.shown_run.replay.summary.step == 401, "it is followed"
        )
        await screen.sees("step 401/1000")
        assert "≈ reading" in screen.words
        reading_on.set()
        await screen.sees("loss over steps ─")
        await screen.sees("→ 12.20")
        assert pane.shown_run is not None
        assert pane.shown_run.replay.curves.train.count == 401
        engine.step(402, 0.75)
        await screen.sees("step 402/1000")


async def test_whether_a_run_goes_on_is_not_guessed_on_train(tmp_path: Path, reading_on: threading.Event) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.embody()
    engine.begin(Recipe(), max_steps=1000)
    engine.phase("training", 0.0, max_steps=1000)
    for step in range(1, 401):
        engine.step(step, 3 - step / 200)
    async with opened(tmp_path, size=NARROW, engine=engine) as screen:
        await screen.tab("train")
        await screen.sees("≈ reading 0%")
        engine.die()
        await screen.sees("its journal: is it still running?")
        reading_on.set()
        await screen.sees("interrupted")
