"""A run in the real engine, with everything that can be asked of it while it trains."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from bench.gpu.part import Work
from bench.gpu.parts.runs import Done
from tests.journals import read_events
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine, stop_engine
from workbench.engine.client.protocol import ControlRequest, EngineStatus, Message, ReplyRequest, Sampling
from workbench.engine.client.requests import train_request
from workbench.machine.gpu import gpus_now
from workbench.runs.folder import RunFolder, find_run, summarise

STEPS, TOY_STEPS = 150, 60


def measure(work: Work) -> None:
    asyncio.run(_measure(work))
    work.verdict()


async def _measure(work: Work) -> None:
    recipe = work.recipe(
        {
            "training.max_steps": TOY_STEPS if work.toy else STEPS,
            "training.eval_steps": 20,
            "training.save_steps": 25,
            "data.eval_fraction": 0.1,
        }
    )
    started = time.monotonic()
    await ensure_engine(work.home)
    work.note(engine_answers_after=time.monotonic() - started)
    client = EngineClient(work.home)
    try:
        run = find_run(work.home, (await client.train(train_request(recipe))).run)
        await _steer(work, client, run)
    finally:
        await client.close()
        await stop_engine(work.home)
    done = Done(run, read_events(run.journal), "")
    work.note(
        finished=done.told,
        timeline=[(event["event"], event["time"]) for event in done.events if event["event"] != "step"],
    )
    steps = [event["step"] for event in done.events if event["event"] == "step"]
    wanted = list(range(1, recipe.training.max_steps + 1))
    work.check("finished with every step once", summarise(run).state == "finished" and steps == wanted, steps[-3:])


async def _steer(work: Work, client: EngineClient, run: RunFolder) -> None:
    """Pause, sample, release, resume, and change the learning rate."""

    async def ask(action: str, event: str, **options: Any) -> None:
        before = _count(run, event)
        started = time.monotonic()
        await client.control(ControlRequest(action=action, **options))  # type: ignore[arg-type]
        await _until(work, lambda: _count(run, event) > before, run)
        work.note(**{f"seconds: {action}{' and release' * bool(options.get('release'))}": time.monotonic() - started})

    # Requests before the first step are carried out before it; these come between steps.
    await _until(work, lambda: _count(run, "step") >= 3, run)
    await ask("pause", "paused")
    held = await client.status()
    work.note(paused=_memory(held))
    request = ReplyRequest(
        target=run.id, messages=[Message(role="user", content="ship")], sampling=Sampling(max_new_tokens=16)
    )
    pieces = [piece async for piece in client.reply(request)]
    work.note(reply_in_pause=[piece.model_dump() for piece in pieces][-1])
    await ask("sample", "sample")
    sample = _last(run, "sample")
    work.note(sample=sample)
    work.check("a sample has replies", sample["replies"], sample)
    await ask("learning_rate", "checkpoint", value=1e-4)
    await ask("pause", "paused", release=True)
    released = await client.status()
    work.note(released=_memory(released))
    if work.device == "cuda":
        work.check("released memory is free", released.reserved < max(held.reserved // 10, 1 << 27), _memory(released))
    await ask("resume", "resumed")
    await _until(work, lambda: summarise(run).state not in ("new", "running", "paused"), run)


def _memory(status: EngineStatus) -> dict[str, Any]:
    """What the engine and the driver say of the memory."""
    gpus = [
        {"used": gpu.used_bytes, "processes": [(p.pid, p.bytes, p.home) for p in gpu.processes]} for gpu in gpus_now()
    ]
    return {"pid": status.pid, "allocated": status.allocated, "reserved": status.reserved, "gpus": gpus}


def _count(run: RunFolder, name: str) -> int:
    return sum(event["event"] == name for event in read_events(run.journal))


def _last(run: RunFolder, name: str) -> dict[str, Any]:
    return next(dict(event) for event in reversed(read_events(run.journal)) if event["event"] == name)


async def _until(work: Work, condition: Callable[[], object], run: RunFolder) -> None:
    while not condition():
        ended = summarise(run)
        if ended.state in ("failed", "interrupted"):
            raise RuntimeError(f"{run.id} {ended.state}: {ended.reason}\n{run.log.read_text()[-3000:]}")
        if work.seconds_left < 5:
            raise TimeoutError([dict(event) for event in read_events(run.journal)[-3:]])
        await asyncio.sleep(0.02)
