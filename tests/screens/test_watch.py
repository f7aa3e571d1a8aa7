"""What the app reads of a run while it goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from textual.message import Message

from screens.messages import JournalGrew
from screens.session import Session
from screens.shell import watch
from screens.shell.watch import Watch
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.runs import journal_sample
from workbench.storage.paths import Home


@dataclass
class Told:
    """A message, and what a screen sees then: the run's state, and whether it is live."""

    message: JournalGrew
    seen: tuple[str, bool]


@asynccontextmanager
async def watching(engine: ScriptedEngine, session: Session | None = None) -> AsyncIterator[tuple[Session, list[Told]]]:
    """A watch at work on a scripted engine: its session, and what it tells of the journal."""
    session = session or Session(engine.home, engine)
    told: list[Told] = []

    def tell(message: Message) -> None:
        if isinstance(message, JournalGrew):
            assert session.summary is not None
            told.append(Told(message, (session.summary.state, session.is_live)))

    keep = Watch(session, tell)
    tasks = [asyncio.create_task(work) for work in (keep.engine(), keep.journal())]
    try:
        yield session, told
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_a_journal_is_folded_as_it_grows(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=400)
    for step in range(1, 201):
        engine.step(step, 1.0)
    async with watching(engine) as (session, told):
        await until(lambda: session.summary is not None and session.summary.step == 200)
        engine.step(201, 0.5)
        await until(lambda: session.summary is not None and session.summary.step == 201)
        assert session.live is not None
        assert session.live.replay.curves.train.count == 201
        assert {one.message.run for one in told} == {session.live.run.id}


async def test_a_run_that_was_read_before_the_engine_called_it_live_keeps_its_steps(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    session = Session(engine.home, engine)
    run = engine.begin(Recipe(), max_steps=400)
    for step in range(1, 201):
        engine.step(step, 1.0)
    started = session.follow(run)
    await started.catch_up()
    async with watching(engine, session) as (_, told):
        await until(lambda: session.is_live and told)
        assert session.live is started
        assert started.replay.curves.train.count == 200


async def test_the_last_events_of_a_run_are_not_missed(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=20)
    engine.step(1, 1.0)
    async with watching(engine) as (session, _):
        await until(lambda: session.summary is not None and session.summary.step == 1)
        for step in range(2, 21):
            engine.step(step, 1.0)
        engine.finish()
        await until(lambda: session.summary is not None and session.summary.state == "finished")
        assert session.live is not None
        assert session.live.replay.ended is not None


async def test_a_run_whose_process_died_is_not_live_once_the_screen_can_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STATUS_SECONDS", 3600)
    engine = ScriptedEngine(Home(tmp_path))
    engine.embody()
    engine.begin(Recipe(), max_steps=400)
    engine.write("run_started", model="m", **engine.who())
    engine.step(1, 1.0)
    async with watching(engine) as (session, told):
        await until(lambda: session.summary is not None and session.summary.step == 1)
        assert session.is_live
        engine.step(2, 1.0)
        engine.die()
        await until(lambda: told and told[-1].seen[0] == "interrupted")
        assert ("interrupted", True) not in [one.seen for one in told]


async def test_a_long_journal_is_taken_up_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_sample, "LONG", 10_000)
    monkeypatch.setattr(journal_sample, "_HEAD", 4_000)
    monkeypatch.setattr(journal_sample, "_TAIL", 2_000)
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=400)
    engine.evaluated(0, 3.0, 20.1)
    for step in range(1, 201):
        engine.step(step, 1.0)
        if step == 100:
            engine.evaluated(100, 1.0, 2.7)
    async with watching(engine) as (session, _):
        await until(lambda: session.summary and session.summary.step == 200 and not session.summary.is_partial)
        assert session.summary is not None
        assert (session.summary.step, session.summary.perplexity) == (200, {"base": 20.1, "tuned": 2.7})
        engine.step(201, 0.5)
        await until(lambda: session.summary.step == 201)
