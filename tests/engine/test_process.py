"""The engine as a process: found, driven over its socket, ended, killed; and what it refuses."""

import asyncio
import os
import signal
import stat

import pytest

from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import engine_pid, ensure_engine, find_engine, stop_engine
from workbench.engine.client.protocol import CancelRequest, Message, ReplyRequest, Sampling, StopRequest, new_request_id
from workbench.engine.client.requests import train_request
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import edit
from workbench.runs.folder import find_run, summarise


@pytest.fixture
def home(shared_home):
    return shared_home


async def until(condition, seconds=120):
    """Wait for a condition, a bounded time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def at_rest(engine, seconds=120):
    """Wait until the engine takes work again: a moment after the journal says that a run has ended."""
    async with asyncio.timeout(seconds):
        while (await engine.status()).state != "idle":
            await asyncio.sleep(0.02)


def question(target, text="Question 3?", **changes):
    fields = {"sampling": Sampling(temperature=0, max_new_tokens=12), **changes}
    return ReplyRequest(target=target, messages=[Message(role="user", content=text)], **fields)


async def answer(engine, request):
    text, last = "", None
    async for piece in engine.reply(request):
        if not isinstance(piece, Progress):
            text, last = text + piece.text, piece
    return text, last


async def test_only_the_owner_may_open_the_socket(engine, home):
    assert stat.S_IMODE(home.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.socket.parent.stat().st_mode) == 0o700


async def test_a_second_terminal_finds_the_same_engine(engine, home):
    first, second = await asyncio.gather(ensure_engine(home), ensure_engine(home))
    assert first.pid == second.pid == engine_pid(home)


async def test_train_then_chat_with_the_same_weights(engine, home, recipe):
    run = find_run(home, (await engine.train(train_request(edit(recipe, {"training.max_steps": 30})))).run)
    await until(lambda: summarise(run).state != "running" and summarise(run).state != "new")
    await at_rest(engine)
    assert summarise(run).state == "finished"
    status = await engine.status()
    assert status.state == "idle"
    assert status.model.adapter == str(run.adapter)
    tuned, end = await answer(engine, question(run.id))
    base, _ = await answer(engine, question(run.id, adapter=False))
    assert tuned.startswith("Aye, answer")
    assert base != tuned
    assert end.reason in ("end", "length")
    assert end.tokens > 0
    assert end.tokens_per_second > 0
    # Nothing that libraries print reaches a terminal: it is in the run's log.
    assert run.log.is_file()


async def test_a_saved_adapter_answers_after_a_restart(engine, home, recipe):
    run = find_run(home, (await engine.train(train_request(edit(recipe, {"training.max_steps": 30})))).run)
    await until(lambda: summarise(run).state == "finished")
    await at_rest(engine)
    before, _ = await answer(engine, question(run.id))
    await stop_engine(home)
    await ensure_engine(home)
    assert (await engine.status()).model is None
    after, _ = await answer(engine, question(str(run.adapter)))
    assert after == before


async def test_while_it_trains_it_answers_status_and_refuses_the_rest(engine, home, recipe):
    run = find_run(home, (await engine.train(train_request(edit(recipe, {"training.max_steps": 100000})))).run)
    await until(lambda: summarise(run).step >= 2)
    status = await engine.status()
    assert (status.state, status.run) == ("training", run.id)
    for refused in (engine.train(train_request(recipe)), engine.unload(), answer(engine, question(run.id))):
        with pytest.raises(WorkbenchError) as caught:
            await refused
        assert caught.value.kind == "busy"
    await engine.stop(StopRequest(save=True))
    await until(lambda: summarise(run).state == "stopped")
    await at_rest(engine)
    with pytest.raises(WorkbenchError) as caught:
        await engine.stop(StopRequest())
    assert caught.value.kind == "no_run"


async def test_a_reply_can_be_cancelled(engine, endless_llama):
    request = question(str(endless_llama), sampling=Sampling(temperature=1.0, max_new_tokens=30_000))
    pieces, request_id, last = 0, new_request_id(), None
    async for piece in engine.reply(request, request_id=request_id):
        if isinstance(piece, Progress):
            continue
        pieces, last = pieces + 1, piece
        if pieces == 2:
            await engine.cancel(CancelRequest(id=request_id))
    assert last.done
    assert last.reason == "cancelled"
    assert last.tokens < 30_000


async def test_a_seed_repeats_a_draw(engine, recipe):
    def request(seed):
        return question(recipe.model.source, sampling=Sampling(temperature=1.5, max_new_tokens=20, seed=seed))

    first, second, other = [(await answer(engine, request(seed)))[0] for seed in (7, 7, 8)]
    assert first == second != other


async def test_a_killed_engine_is_told_apart_and_started_again(engine, home, recipe):
    run = find_run(home, (await engine.train(train_request(edit(recipe, {"training.max_steps": 100000})))).run)
    await until(lambda: summarise(run).step >= 1)
    os.kill(engine_pid(home), signal.SIGKILL)
    await until(lambda: summarise(run).state == "interrupted")
    with pytest.raises(WorkbenchError) as caught:
        await engine.status()
    assert caught.value.kind == "engine_gone"
    assert await find_engine(home) is None
    assert (await ensure_engine(home)).state == "idle"


async def test_a_hang_up_changes_nothing_and_a_term_saves(engine, home, recipe):
    run = find_run(home, (await engine.train(train_request(edit(recipe, {"training.max_steps": 100000})))).run)
    await until(lambda: summarise(run).step >= 1)
    pid = engine_pid(home)
    os.kill(pid, signal.SIGHUP)
    step = summarise(run).step
    await until(lambda: summarise(run).step > step)
    os.kill(pid, signal.SIGTERM)
    await until(lambda: summarise(run).state == "stopped")
    assert (run.adapter / "adapter_model.safetensors").is_file()
    await until(lambda: engine_pid(home) is None)


async def test_fetching_and_trees(engine, tiny_llama):
    section = ModelSection(source=str(tiny_llama))
    assert [progress async for progress in engine.fetch(section)] == []
    skeleton = await engine.tree(section)
    assert skeleton.architecture == "LlamaForCausalLM"
    missing = ModelSection(source="/nowhere/at/all")
    with pytest.raises(WorkbenchError, match="No model at"):
        await engine.tree(missing)
    with pytest.raises(WorkbenchError, match="No model at"):
        [progress async for progress in engine.fetch(missing)]


async def test_what_is_neither_run_nor_model_is_named(engine):
    with pytest.raises(WorkbenchError) as caught:
        await answer(engine, question("nonsense"))
    assert caught.value.kind == "run_not_found"


async def test_a_home_that_cannot_be_used_is_a_sentence(tmp_path):
    from workbench.storage.paths import Home

    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="Cannot use"):
        await ensure_engine(Home(tmp_path / "file"))


@pytest.mark.usefixtures("fresh_processes")
async def test_a_home_with_a_long_path_has_its_socket_elsewhere(tmp_path):
    from workbench.storage.paths import Home

    deep = Home(tmp_path / ("x" * 60) / ("y" * 60))
    status = await ensure_engine(deep)
    assert not deep.socket.is_relative_to(deep.root)
    client = EngineClient(deep)
    assert (await client.status()).pid == status.pid
    await client.close()
    await stop_engine(deep)
