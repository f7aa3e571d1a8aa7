"""What Data, Train, Chat and Runs look like at both sizes, with the clock standing still."""

import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from screens.app import WorkbenchApp
from screens.shell.run_bar import RunBar
from screens.train.gpu_panel import GpuPanel
from screens.widgets import glyphs
from tests.screens.piloting import NARROW, WIDE, Opened
from tests.screens.scripted import ScriptedEngine, some_facts
from workbench.machine.gpu import GpuSample
from workbench.machine.host import HostSample
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

GIB = 2**30
SIZES = [pytest.param(WIDE, id="120x40"), pytest.param(NARROW, id="80x24")]
HOST = HostSample(37.0, 64 * GIB, 12 * GIB, 52 * GIB, process_bytes=2 * GIB)
GPU = GpuSample(0, "NVIDIA H200", 139 * GIB, 31 * GIB, 108 * GIB, 96.0, 61.0, 612.0)
Act = Callable[[Opened], Awaitable[None]]


@pytest.fixture(autouse=True)
def _this_machine_and_this_hour_do_not_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    time.tzset()
    if not glyphs.unicode_terminal():
        pytest.skip("the pictures are drawn in a UTF-8 locale, and this one is none")
    yield
    monkeypatch.undo()
    time.tzset()


def train_some(engine: ScriptedEngine, steps: int, of: int = 200, *, gpu: bool = False) -> None:
    engine.begin(Recipe(), max_steps=of)
    engine.phase(
        "preparing",
        base="nf4, double quantized",
        compute_dtype="bfloat16",
        trainable_parameters=4_884_480,
        predicted={"allocated_bytes": int(23.7 * GIB)} if gpu else None,
        peak_flops=989.4e12 if gpu else None,
        no_peak="" if gpu else "the peak FLOP/s of a CPU is unknown",
    )
    engine.phase("tokenizing", 1.0, counts={"train": 313, "eval": 34})
    engine.phase("training", 0.0, max_steps=of)
    engine.evaluated(0, 3.1, 22.2)
    for step in range(1, steps + 1):
        loss = 0.45 + 2.4 * math.exp(-step / 40) + 0.09 * math.sin(step * 12.9898)
        vram = {"allocated": 20 * GIB, "reserved": 25 * GIB, "peak": 24 * GIB} if gpu else None
        parts = {"data": 0.005, "forward": 0.155, "backward": 0.3, "optimizer": 0.03, "other": 0.01}
        speed = (
            {"flops": 405_600_000_000_000, "mfu": 0.41, "hfu": 0.55} if gpu else {"flops": 41_000_000_000, "mfu": None}
        )
        engine.step(step, loss, token_accuracy=0.41, vram=vram, parts=parts, padding=0.034, **speed)
        if step % 50 == 0:
            engine.evaluated(step, loss + 0.1, math.exp(loss + 0.1))


def snapped(snap_compare: Any, home: Path, size: tuple[int, int], engine: ScriptedEngine, tab: str, act: Act) -> bool:
    app = WorkbenchApp(Home(home), engine)
    app.sample_hardware = False

    async def before(pilot: Pilot[None]) -> None:
        screen = Opened(app, pilot, engine)
        await screen.until(lambda: app.pane_in_front is not None, "the first tab")
        await screen.tab(tab)
        await act(screen)
        # Facts and bars are drawn at most once a second; what is due is drawn now.
        await pilot.pause(1.2)

    return bool(snap_compare(app, terminal_size=size, run_before=before))


def shows(words: str, *keys: str) -> Act:
    async def act(screen: Opened) -> None:
        await screen.until(lambda: words in screen.words, words)
        await screen.press(*keys)

    return act


@pytest.mark.parametrize("size", SIZES)
def test_data_before_its_tokens_are_known(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    assert snapped(snap_compare, tmp_path, size, engine, "data", shows("record 1 of 347", "n"))


@pytest.mark.parametrize(
    ("size", "keys"),
    [(WIDE, "n"), (NARROW, "n"), (NARROW, "nf")],
    ids=["120x40", "80x24", "80x24-figures"],
)
def test_data_as_it_is_fed(snap_compare: Any, tmp_path: Path, size: tuple[int, int], keys: str) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.sources.answers = [
        some_facts([("Who sails her?", "Aye, the mate."), ("Why do ships float?", "They weigh less.")])
    ]
    assert snapped(snap_compare, tmp_path, size, engine, "data", shows("record 1 of 347", *keys))


@pytest.mark.parametrize("size", SIZES)
def test_train_before_a_run(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    engine = ScriptedEngine(Home(tmp_path))

    async def act(screen: Opened) -> None:
        screen.app.session.host = HOST
        screen.app.query_one(GpuPanel).sample((), HOST)
        screen.app.pane_in_front.on_shown()  # type: ignore[union-attr]
        await screen.until(lambda: "fits: needs" in screen.words, "the start card")

    assert snapped(snap_compare, tmp_path, size, engine, "train", act)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gpu", [True, False], ids=["gpu", "cpu"])
def test_train_live(snap_compare: Any, tmp_path: Path, size: tuple[int, int], gpu: bool) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    train_some(engine, 120, gpu=gpu)

    async def act(screen: Opened) -> None:
        # The bar repaints at most once a second.
        bar = screen.app.query_one(RunBar)
        await screen.until(lambda: "step 120/200" in bar.text.plain, "the newest step in the bar")
        screen.app.session.gpus, screen.app.session.host = ((GPU,) if gpu else ()), HOST
        panel = screen.app.query_one(GpuPanel)
        for _ in range(8):
            panel.sample(screen.app.session.gpus, HOST)
        screen.app.pane_in_front.on_shown()  # type: ignore[union-attr]

    assert snapped(snap_compare, tmp_path, size, engine, "train", act)


@pytest.mark.parametrize("size", SIZES)
def test_train_failed_with_its_log(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    train_some(engine, 40)
    assert engine.run is not None
    engine.run.log.write_text("".join(f"line {number} of what a library printed\n" for number in range(30)))

    async def act(screen: Opened) -> None:
        await screen.until(lambda: "step 40/200" in screen.words, "the newest step")
        engine.fail(
            "CUDA ran out of memory at step 41.", "Halve training.per_device_train_batch_size.", "Traceback\n  line 1"
        )
        await screen.until(lambda: "The run failed" in screen.words, "the error")
        await screen.press("l")
        await screen.until(lambda: "line 29" in screen.words, "the log")

    assert snapped(snap_compare, tmp_path, size, engine, "train", act)


@pytest.mark.parametrize("size", SIZES)
def test_chat(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    train_some(engine, 3, 3)
    engine.finish(step=3)
    assert engine.run is not None
    (engine.run.adapter / "adapter_config.json").write_text("{}")

    async def act(screen: Opened) -> None:
        await screen.until(lambda: "run-01" in screen.words, "who answers")
        await screen.press("enter", *"How do ships float?", "enter")
        await screen.until(lambda: engine.backend.requests, "the engine is asked")
        engine.say("Aye, **matey**! She floats as long as she\n\n1. weighs less than\n2. the *water* she pushes.\n")
        engine.end()
        await screen.until(lambda: "42 tokens" in screen.words, "its figures")
        await screen.until(lambda: screen.app.session.status.state == "idle", "the engine at rest")
        await screen.press("escape")

    assert snapped(snap_compare, tmp_path, size, engine, "chat", act)


@pytest.mark.parametrize("size", SIZES)
def test_chat_side_by_side(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    train_some(engine, 3, 3)
    engine.finish(step=3)
    assert engine.run is not None
    (engine.run.adapter / "adapter_config.json").write_text("{}")

    async def act(screen: Opened) -> None:
        await screen.until(lambda: "run-01" in screen.words, "who answers")
        screen.app.query_one("#seed", Input).value = "7"
        await screen.press("o", "enter", *"How do ships float?", "enter")
        for number, reply in enumerate(
            ("They displace water:\n\n```\nB = ρ g V\n```\n", "Aye, **matey**! She pushes water."), 1
        ):
            await screen.until(lambda n=number: len(engine.backend.requests) == n, "the next is asked")  # type: ignore[misc]
            engine.say(reply)
            engine.end()
        await screen.until(lambda: "Aye, matey!" in screen.words and screen.words.count("42 tokens") == 2, "both")
        await screen.until(lambda: screen.app.session.status.state == "idle", "the engine at rest")
        await screen.press("escape")

    assert snapped(snap_compare, tmp_path, size, engine, "chat", act)


def with_two_runs(folder: Path) -> ScriptedEngine:
    """One that finished, and one that failed after it."""
    engine = ScriptedEngine(Home(folder))
    train_some(engine, 200)
    engine.finish(step=200)
    train_some(engine, 60)
    engine.fail("CUDA ran out of memory at step 60.", "Halve the micro-batch.")
    return engine


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opened", [False, True], ids=["history", "one"])
def test_runs(snap_compare: Any, tmp_path: Path, size: tuple[int, int], opened: bool) -> None:
    engine = with_two_runs(tmp_path)

    async def act(screen: Opened) -> None:
        await screen.until(lambda: "run-01" in screen.words and "failed" in screen.words, "the history")
        if opened:
            await screen.press("down", "enter")
            await screen.until(lambda: "━ train" in screen.words, "the curve")

    assert snapped(snap_compare, tmp_path, size, engine, "runs", act)


@pytest.mark.parametrize("size", SIZES)
def test_runs_over_each_other(snap_compare: Any, tmp_path: Path, size: tuple[int, int]) -> None:
    engine = with_two_runs(tmp_path)

    async def act(screen: Opened) -> None:
        await screen.until(lambda: "run-01" in screen.words and "failed" in screen.words, "the history")
        await screen.press("space", "space", "o")
        await screen.until(lambda: "B run-01" in screen.words and "results" in screen.words, "both curves")

    assert snapped(snap_compare, tmp_path, size, engine, "runs", act)
