"""Runs that are lined up: one after the other with nobody there, whatever becomes of the engine meanwhile."""

import asyncio
import json
import os
import signal
import stat
from itertools import pairwise

import pytest

from tests.engine.test_process import answer, at_rest, question, until
from workbench.engine.client.home_engine import HomeEngine
from workbench.engine.client.process import engine_pid, ensure_engine, find_engine, stop_engine
from workbench.engine.client.protocol import (
    CancelRequest,
    Sampling,
    ShutdownRequest,
    StopRequest,
    new_request_id,
)
from workbench.engine.client.requests import enqueue_request, resume_request, run_requests, train_request
from workbench.errors import WorkbenchError
from workbench.planning.queue import ON_REQUEST, Entry, Queue, QueueRequest, QueueState, RunRequest
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder, all_runs, find_run, summarise
from workbench.storage.paths import Home

LONG = {"training.max_steps": 100000}


@pytest.fixture
def home(shared_home):
    return shared_home


def named(recipe, name, **changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return edit(recipe, {"output.name": name, "training.max_steps": 3, **changes})


def add(*recipes):
    return enqueue_request(recipes)


def ask(action, *ids, **more):
    return QueueRequest(action=action, ids=list(ids), **more)


async def change_queue(home, request):
    """Change the queue as a screen or a command does, whether an engine runs or not."""
    engine = HomeEngine(home)
    try:
        return await engine.change_queue(request)
    finally:
        await engine.close()


def states(home):
    """Every run's state by its id."""
    return {run.id: summarise(run).state for run in all_runs(home)}


def summarise_of(home, name):
    return summarise(RunFolder(home.runs / f"{name}-01"))


async def until_done(home, count, seconds=240):
    async with asyncio.timeout(seconds):
        while len(states(home)) < count or set(states(home).values()) & {"new", "running"}:
            await asyncio.sleep(0.05)


# -- what the engine does -----------------------------------------------------------------------------------------


async def test_three_runs_go_one_after_the_other_with_nobody_connected(engine, home, recipe):
    await engine.close()
    line = await change_queue(home, add(*(named(recipe, f"rank-{r}", adapter__r=r) for r in (2, 4, 8))))
    assert len(line.waiting) + len(line.taken) == 3
    await until_done(home, 3)
    assert states(home) == {f"rank-{r}-01": "finished" for r in (2, 4, 8)}
    runs = [find_run(home, f"rank-{r}") for r in (2, 4, 8)]
    assert [run.recipe().adapter.r for run in runs] == [2, 4, 8]
    summaries = [summarise(run) for run in runs]
    assert all(before.ended <= after.started for before, after in pairwise(summaries))
    line = Queue(home).read()
    assert [entry.run for entry in line.taken] == [str(run.path) for run in runs]
    assert not line.waiting
    await until(lambda: not Queue(home).read().ahead)


async def test_a_run_that_fails_or_is_stopped_is_followed_by_the_next(engine, home, recipe):
    nowhere = edit(named(recipe, "fails"), {"model.source": str(home.root / "no-such-model")})
    await engine.edit_queue(add(nowhere, named(recipe, "stopped", **LONG), named(recipe, "dropped", **LONG)))
    await engine.edit_queue(add(named(recipe, "last")))
    for name, save in (("stopped", True), ("dropped", False)):
        await until(lambda name=name: summarise_of(home, name).step >= 1)
        assert (await engine.status()).queued == {"stopped": 2, "dropped": 1}[name]
        await engine.stop(StopRequest(save=save))
    await until_done(home, 4)
    assert states(home) == {
        "fails-01": "failed",
        "stopped-01": "stopped",
        "dropped-01": "stopped",
        "last-01": "finished",
    }


async def test_what_cannot_become_a_run_is_told_and_passed_over(engine, home, recipe):
    broken = RunRequest(recipe={**recipe.as_dict(), "adapter": {"r": "many"}})
    with pytest.raises(WorkbenchError, match=r"adapter\.r"):
        await engine.edit_queue(QueueRequest(action="add", runs=[broken]))
    # As of an older version, whose recipes had other keys.
    await asyncio.to_thread(Queue(home).apply, QueueRequest(action="add", runs=[broken]))
    await engine.edit_queue(add(named(recipe, "next")))
    await until_done(home, 1)
    first, second = Queue(home).read().taken
    assert "adapter.r" in first.problem
    assert not first.run
    assert second.run == str(find_run(home, "next").path)


async def test_a_held_queue_takes_nothing_until_it_goes_on(engine, home, recipe):
    line = await engine.edit_queue(ask("hold"))
    assert line.held == ON_REQUEST
    await engine.edit_queue(add(named(recipe, "one"), named(recipe, "two")))
    # An engine that may take work again looks at the queue; this one has been idle all along.
    await answer(engine, question(recipe.model.source, sampling=Sampling(max_new_tokens=1)))
    await at_rest(engine)
    status = await engine.status()
    assert (status.queued, status.queue_held) == (2, ON_REQUEST)
    assert not all_runs(home)
    await engine.edit_queue(ask("go"))
    await until_done(home, 2)
    assert set(states(home).values()) == {"finished"}


async def test_a_reply_in_between_delays_the_next_run_and_loses_nothing(engine, home, recipe, endless_llama):
    request = question(str(endless_llama), sampling=Sampling(temperature=1.0, max_new_tokens=30_000))
    request_id = new_request_id()
    pieces = engine.reply(request, request_id=request_id)
    async for piece in pieces:
        if getattr(piece, "text", ""):
            break
    await engine.edit_queue(add(named(recipe, "after-the-reply")))
    status = await engine.status()
    assert (status.state, status.queued) == ("replying", 1)
    await engine.cancel(CancelRequest(id=request_id))
    assert [piece async for piece in pieces][-1].done
    await until_done(home, 1)
    assert states(home) == {"after-the-reply-01": "finished"}


async def test_a_run_started_by_hand_goes_before_those_that_wait(engine, home, recipe):
    await engine.train(train_request(named(recipe, "by-hand", **LONG)))
    await until(lambda: summarise_of(home, "by-hand").step >= 1)
    line = await engine.edit_queue(add(named(recipe, "queued")))
    assert line.ahead == str(find_run(home, "by-hand").path)
    assert line.current is None
    with pytest.raises(WorkbenchError) as caught:
        await engine.train(train_request(named(recipe, "too-early")))
    assert caught.value.kind == "busy"
    await engine.stop(StopRequest(save=True))
    await until_done(home, 2)
    assert states(home) == {"by-hand-01": "stopped", "queued-01": "finished"}


async def test_a_killed_engine_holds_the_queue_until_the_run_goes_on(engine, home, recipe):
    first = named(recipe, "first", **LONG, training__save_steps=1)
    await engine.edit_queue(add(first, named(recipe, "second")))
    await until(lambda: summarise_of(home, "first").step >= 2)
    os.kill(engine_pid(home), signal.SIGKILL)
    await until(lambda: summarise_of(home, "first").state == "interrupted")
    # Asked without an engine, the queue is as it was.
    assert [entry.name for entry in Queue(home).read().waiting] == ["second"]
    status = await ensure_engine(home)
    assert status.queued == 1
    assert "first-01 was interrupted in step" in status.queue_held
    assert states(home) == {"first-01": "interrupted"}
    await engine.resume(resume_request("first-01"))
    await until(lambda: summarise_of(home, "first").state == "running")
    assert (await engine.status()).queue_held == ""
    await engine.stop(StopRequest(save=True))
    await until_done(home, 2)
    assert states(home) == {"first-01": "stopped", "second-01": "finished"}


async def test_after_a_kill_the_queue_can_be_told_to_go_on_without_the_run(engine, home, recipe):
    await engine.train(train_request(named(recipe, "by-hand", **LONG)))
    await engine.edit_queue(add(named(recipe, "second")))
    await until(lambda: summarise_of(home, "by-hand").step >= 1)
    os.kill(engine_pid(home), signal.SIGKILL)
    await until(lambda: engine_pid(home) is None)
    line = await change_queue(home, ask("go"))
    assert not line.held
    await until(lambda: summarise_of(home, "second").state == "finished")
    assert states(home) == {"by-hand-01": "interrupted", "second-01": "finished"}


async def test_an_engine_that_is_ended_leaves_the_queue_held(engine, home, recipe):
    await engine.edit_queue(add(named(recipe, "first", **LONG), named(recipe, "second")))
    await until(lambda: summarise_of(home, "first").step >= 1)
    await stop_engine(home)
    assert states(home) == {"first-01": "stopped"}
    status = await ensure_engine(home)
    assert "The engine was shut down while first-01" in status.queue_held
    assert states(home) == {"first-01": "stopped"}
    await engine.edit_queue(ask("go"))
    await until(lambda: summarise_of(home, "second").state == "finished")


async def test_an_engine_does_not_end_over_runs_that_wait(tmp_path, recipe):
    home = Home(tmp_path / "home")
    home.root.mkdir(parents=True)
    home.settings.write_text(json.dumps({"engine": {"stop_after_minutes": 0.001}}))
    Queue(home).apply(add(*(named(recipe, f"quiet-{n}", training__max_steps=20) for n in range(3))))
    # It looks at its settings every few milliseconds, and nobody speaks to it.
    await ensure_engine(home)
    await until_done(home, 3)
    assert set(states(home).values()) == {"finished"}
    await until(lambda: engine_pid(home) is None)
    assert await find_engine(home) is None


async def test_an_engine_between_two_runs_is_not_ended_by_a_terminal_that_leaves(engine, home, recipe):
    await engine.edit_queue(add(named(recipe, "one", **LONG), named(recipe, "two")))
    with pytest.raises(WorkbenchError) as caught:
        await engine.shutdown(ShutdownRequest())
    assert caught.value.kind == "busy"
    await engine.edit_queue(ask("clear"))
    await engine.stop(StopRequest(save=False))


async def test_a_damaged_file_stops_the_queue_and_nothing_else(engine, home, recipe):
    home.queue.write_text("{")
    status = await engine.status()
    assert "cannot be read" in status.queue_held
    with pytest.raises(WorkbenchError, match="Fix the file"):
        await engine.edit_queue(add(recipe))
    assert home.queue.read_text() == "{"
    await engine.train(train_request(named(recipe, "all-the-same")))
    await until_done(home, 1)
    assert states(home) == {"all-the-same-01": "finished"}


# -- the file -----------------------------------------------------------------------------------------------------


def some_line(*names):
    entries = tuple(Entry(id=n, recipe={"output": {"name": name}}) for n, name in enumerate(names, 1))
    return QueueState(next_id=len(names) + 1, waiting=entries)


def order(line):
    return [entry.name for entry in line.waiting]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ask("remove", 2), ["a", "c"]),
        (ask("remove", 1, 3), ["b"]),
        (ask("move", 3, place=1), ["c", "a", "b"]),
        (ask("move", 1, place=2), ["b", "a", "c"]),
        (ask("move", 1, place=99), ["b", "c", "a"]),
        (ask("move", 2, place=-5), ["b", "a", "c"]),
        (ask("clear"), []),
        (ask("replace", 2, runs=[RunRequest(recipe={"output": {"name": "d"}})]), ["a", "d", "c"]),
        (QueueRequest(action="add", runs=[RunRequest(recipe={"output": {"name": "d"}})]), ["a", "b", "c", "d"]),
    ],
)
def test_what_is_asked_of_it(request_, expected):
    assert order(some_line("a", "b", "c").after_request(request_)) == expected


@pytest.mark.parametrize("action", ["remove", "move", "replace"])
def test_an_entry_that_does_not_wait_is_named(action):
    line = some_line("a").with_taken(some_line("a").waiting[0], run="/runs/a-01")
    with pytest.raises(WorkbenchError, match="There is no queued entry 1: it started as a-01"):
        line.after_request(ask(action, 1))
    with pytest.raises(WorkbenchError, match="There is no queued entry 7"):
        line.after_request(ask(action, 7))


def test_numbers_are_not_used_again():
    line = some_line("a", "b").after_request(ask("clear"))
    line = line.after_request(QueueRequest(action="add", runs=[RunRequest(recipe={})]))
    assert [entry.id for entry in line.waiting] == [3]


def test_a_hold_on_request_outlasts_a_run_that_broke_off():
    line = some_line("a").after_request(ask("hold")).run_interrupted("/runs/x-01", "x-01 was interrupted")
    assert line.run_started("/runs/x-01").held == ON_REQUEST
    line = some_line("a").run_interrupted("/runs/x-01", "x-01 was interrupted")
    assert line.held == "x-01 was interrupted"
    assert line.run_started("/runs/other-01").held
    assert not line.run_started("/runs/x-01").held


async def test_without_an_engine_the_file_itself_is_changed_and_none_is_started(tmp_path):
    home = Home(tmp_path / "home")
    assert Queue(home).read() == QueueState()
    request = QueueRequest(action="add", runs=[RunRequest(recipe={}), RunRequest(recipe={})])
    await asyncio.to_thread(Queue(home).apply, request)
    line = await change_queue(home, ask("remove", 1))
    assert [entry.id for entry in line.waiting] == [2]
    assert (await change_queue(home, ask("hold"))).held
    assert engine_pid(home) is None
    assert stat.S_IMODE(home.queue.stat().st_mode) == 0o600


async def test_many_that_change_it_at_once_lose_nothing(tmp_path):
    queues = [Queue(Home(tmp_path)) for _ in range(8)]
    request = QueueRequest(action="add", runs=[RunRequest(recipe={})])
    await asyncio.gather(*(asyncio.to_thread(queue.apply, request) for queue in queues for _ in range(5)))
    assert [entry.id for entry in Queue(Home(tmp_path)).read().waiting] == list(range(1, 41))


async def test_paths_are_absolute_for_the_engine(home, recipe, records, monkeypatch):
    monkeypatch.chdir(records.parent)
    (one,) = run_requests([edit(recipe, {"data.source": records.name})])
    assert one.recipe["data"]["source"] == str(records)
