"""Whether a run survives: terminals are torn away from it, and its engine is killed, at moments drawn from a seed.

A tiny random Llama is trained by the real engine. In the first part the real app runs in a pseudo-terminal, starts the
run by its key, and loses its line: the terminal is closed, or the app gets SIGHUP or SIGKILL. The run must end by
itself, and a new app must show every step. In the second part the engine gets SIGKILL; the run is resumed, and its
adapter must be bit for bit that of a run that was never interrupted.

    python -m bench.endurance [--times 20] [--seed 0] [--load 2] [--json FILE]

``--load`` keeps so many processor cores busy beside it.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from bench.terminal import Terminal
from screens.app import WorkbenchApp
from tests.journals import read_events
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import engine_pid, ensure_engine, stop_engine
from workbench.engine.client.requests import resume_request, train_request
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder, all_runs, summarise
from workbench.storage.paths import Home

STEPS = 200
_SECONDS = 240


def enduring(recipe: Recipe, steps: int = STEPS) -> Recipe:
    """A recipe with what makes resuming hard: dropout, a schedule, accumulation, checkpoints, a sparse curve."""
    return edit(
        recipe,
        {
            "adapter.lora_dropout": 0.1,
            "training.max_steps": steps,
            "training.gradient_accumulation_steps": 2,
            "training.per_device_train_batch_size": 2,
            "training.lr_scheduler_type": "cosine",
            "training.save_steps": 7,
            "training.eval_steps": 10,
        },
    )


def steps_of(run: RunFolder) -> list[int]:
    return [event["step"] for event in read_events(run.journal) if event["event"] == "step"]


def digest(run: RunFolder) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def lose_the_line(home: Home, recipe: Recipe, draw: random.Random) -> str:
    """Start a run in the app, tear its terminal away at a moment that is drawn, and look at what became of the run.

    Returns:
        What is wrong; empty when the run ended by itself and a new app shows all of it.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    home.settings.write_text(json.dumps({"recipe": recipe.as_dict(), "tab": "train"}), encoding="utf-8")
    known, steps = {run.id for run in all_runs(home)}, recipe.training.max_steps
    with Terminal([sys.executable, "-m", "workbench.cli", "--home", str(home.root)]) as terminal:
        terminal.wait_for("loraworkbench", seconds=60)
        run = _start_by_key(home, known, terminal)
        step = draw.randrange(1, steps - 10)
        _wait(lambda: len(steps_of(run)) >= step, run, terminal)
        match draw.choice(("close", "SIGHUP", "SIGKILL")):
            case "close":
                terminal.hang_up()
            case name:
                os.kill(terminal.pid, signal.Signals[name])
        left_at = len(steps_of(run))
    shown = asyncio.run(_shown_by_a_new_app(home, run))
    _wait(lambda: summarise(run).state not in ("new", "running"), run)
    summary = summarise(run)
    if summary.state != "finished" or steps_of(run) != list(range(1, steps + 1)):
        return f"{run.id}: {summary.state} {summary.reason} after {summary.step} steps, left at {left_at}"
    return "" if shown == (steps, steps) else f"{run.id}: a new app shows {shown}, left at {left_at}"


async def _shown_by_a_new_app(home: Home, run: RunFolder) -> tuple[int, float]:
    """Points of the curve that an app shows which was just opened, and the x of the last, when the run is over.

    A run that is still live is taken over by the Train screen; one that has ended meanwhile is opened on Runs.
    """
    app = WorkbenchApp(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await _until(pilot, lambda: app.pane_in_front is not None and app.session.status is not None)
        await app.action_show_tab("train")
        await _until(pilot, lambda: _pane_is(app, "train") and (_shown(app) or not app.session.is_live))
        if not _shown(app):
            await app.action_show_tab("runs")
            await _until(pilot, lambda: _pane_is(app, "runs") and app.pane_in_front.selected is not None)
            await pilot.press("enter")
        await _until(pilot, lambda: (live := _shown(app)) is not None and live.run.id == run.id and live.replay.is_over)
        live = _shown(app)
        train = live.replay.curves.train
        return train.count, train.last[0] if train.last else 0


def _pane_is(app: WorkbenchApp, name: str) -> bool:
    return app.pane_in_front is not None and app.pane_in_front.id == name


def _shown(app: WorkbenchApp) -> Any:
    """What the screen in front knows of its run."""
    return getattr(app.pane_in_front, "shown_run", None)


async def _until(pilot: Any, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_SECONDS):
        while not condition():
            await pilot.pause(0.05)


def whole_run(home: Home, recipe: Recipe) -> RunFolder:
    """A run that nothing happens to."""
    run = asyncio.run(_start(home, recipe))
    _wait(lambda: summarise(run).state not in ("new", "running"), run)
    assert summarise(run).state == "finished", summarise(run)
    return run


def kill_the_engine(home: Home, recipe: Recipe, draw: random.Random, whole: RunFolder) -> str:
    """Start a run, kill its engine with SIGKILL at a moment that is drawn, and resume it with a new engine.

    Returns:
        What is wrong; empty when adapter and losses are those of ``whole``.
    """
    run = asyncio.run(_start(home, recipe))
    step, after = draw.randrange(0, recipe.training.max_steps - 2), draw.random() * 0.05
    _wait(lambda: len(steps_of(run)) >= step, run)
    time.sleep(after)
    pid = engine_pid(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _wait(lambda: engine_pid(home) is None, run)
    if summarise(run).state == "finished":
        return "" if digest(run) == digest(whole) else f"{run.id}: ended before it was killed, with another adapter"
    asyncio.run(_resume(home, run))
    _wait(lambda: summarise(run).state not in ("new", "running", "interrupted"), run)
    if summarise(run).state != "finished":
        return f"{run.id}: {summarise(run).state} after it was killed at step {step}: {summarise(run).reason}"
    if digest(run) != digest(whole):
        return f"{run.id}: another adapter after it was killed at step {step}"
    return "" if _losses(run) == _losses(whole) else f"{run.id}: other losses after it was killed at step {step}"


def _losses(run: RunFolder) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in read_events(run.journal) if event["event"] == "step"}


async def _start(home: Home, recipe: Recipe) -> RunFolder:
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        started = await client.train(train_request(recipe))
    finally:
        await client.close()
    return next(run for run in all_runs(home) if run.id == started.run)


async def _resume(home: Home, run: RunFolder) -> None:
    await ensure_engine(home)
    client = EngineClient(home)
    try:
        await client.resume(resume_request(run.id))
    finally:
        await client.close()


def _start_by_key(home: Home, known: set[str], terminal: Terminal) -> RunFolder:
    """Press Enter on the Train screen until a run is there: the first keys may come before the screen."""
    for _ in range(20):
        terminal.read(1.5)
        terminal.send("\r")
        for _ in range(30):
            terminal.read(0.1)
            if new := [run for run in all_runs(home) if run.id not in known]:
                return new[0]
    raise TimeoutError(f"no run was started; the last of the screen: {terminal.bytes_written} bytes")


def _wait(condition: Callable[[], object], run: RunFolder | None, terminal: Terminal | None = None) -> None:
    end = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(read_events(run.journal)[-3:] if run else "no run was started")
        if terminal is None:
            time.sleep(0.01)
        else:
            terminal.read(0.01)


def tiny_recipe(folder: Path) -> Recipe:
    """The tests' tiny model and records, made in ``folder``."""
    from tests.conftest import make_tiny_llama, write_records
    from workbench.recipe.text import parse

    return parse(
        {
            "model": {"source": str(make_tiny_llama(folder / "tiny-llama"))},
            "data": {"source": str(write_records(folder / "records.jsonl")), "max_length": 64},
            "training": {"learning_rate": 0.02},
            "output": {"name": "tiny"},
        }
    )


def _circumstances() -> dict[str, object]:
    """When and with what."""
    from workbench.engine.model.hardware import hardware_facts, library_versions

    return {"date": str(date.today()), "steps": STEPS, "hardware": hardware_facts(), "versions": library_versions()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.load)]
    wrong: dict[str, list[str]] = {"line": [], "engine": []}
    with tempfile.TemporaryDirectory() as folder:
        recipe = enduring(tiny_recipe(Path(folder)))
        home = Home(Path(folder) / "home")
        draw = random.Random(options.seed)
        try:
            for time_ in range(options.times):
                problem = lose_the_line(home, recipe, draw)
                print(f"line lost     {time_ + 1:3d}  {problem or 'ended by itself, every step shown'}", flush=True)
                wrong["line"] += [problem] if problem else []
            whole = whole_run(home, recipe)
            for time_ in range(options.times):
                problem = kill_the_engine(home, recipe, draw, whole)
                print(f"engine killed {time_ + 1:3d}  {problem or 'resumed to the same adapter'}", flush=True)
                wrong["engine"] += [problem] if problem else []
        finally:
            asyncio.run(stop_engine(home))
            for process in busy:
                process.kill()
    result: dict[str, object] = {
        name: f"{options.times - len(problems)} of {options.times}" for name, problems in wrong.items()
    }
    print(f"line lost: {result['line']} ended by themselves; engine killed: {result['engine']} resumed bit for bit")
    if options.json:
        told = {**_circumstances(), **result, "wrong": wrong, "seed": options.seed, "load": options.load}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    sys.exit(bool(wrong["line"] or wrong["engine"]))


if __name__ == "__main__":
    main()
