"""Keystroke to painted numbers on the Adapter screen: the rank is turned by an arrow key, the costs beside it follow.

The real app runs at 120×40 without a terminal; what a frame would send to one is rendered all the same. Two figures a
keystroke: until the new numbers are painted, with the wait for Textual's next frame (60 a second) in it; and the time
that the app itself worked.

    python bench/estimate.py [--keys 200] [--pause 0.05] [--json FILE]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from textual import events

import screens.app
from screens.app import WorkbenchApp
from screens.widgets.cost_panel import CostPanel
from screens.widgets.knob_row import KnobRow
from workbench.paths import Home

MODELS = ("meta-llama/Meta-Llama-3-70B", "Qwen/Qwen3-30B-A3B")
KEYS = ("right", "right", "left", "left")


class TimedApp(WorkbenchApp):
    """Says when a frame is ready for the terminal."""

    # A relative path would be taken from this file's folder.
    CSS_PATH = Path(screens.app.__file__).with_name("app.tcss")
    painted: asyncio.Event | None = None

    def _display(self, screen: Any, renderable: Any) -> None:
        super()._display(screen, renderable)
        if self.painted is not None and renderable is not None:
            if hasattr(renderable, "render_segments"):
                renderable.render_segments(self.console)
            self.painted.set()


async def keystrokes(model: str, count: int, pause: float) -> tuple[list[float], list[float]]:
    """Milliseconds until the numbers are painted, and milliseconds of work, for each key after a few to warm up."""
    latency, work = [], []
    with tempfile.TemporaryDirectory() as folder:
        app = TimedApp(Home(Path(folder)))
        app.sample_hardware = app.follow_steps = False
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            # Dropout is what PEFT refuses on fused experts.
            app.set_recipe({"model.source": model, "adapter.lora_dropout": 0.0})
            await app.action_show_tab("adapter")
            panel = app.query_one(CostPanel)
            async with asyncio.timeout(30):
                while app.session.skeleton is None or "trainable" not in panel.text:
                    await pilot.pause(0.05)
            app.query_one("#rank-r", KnobRow).focus()
            await pilot.pause(1)
            for number in range(count + len(KEYS)):
                await asyncio.sleep(pause)
                milliseconds = await _press(app, KEYS[number % len(KEYS)])
                if number >= len(KEYS):
                    latency.append(milliseconds[0])
                    work.append(milliseconds[1])
    return latency, work


async def _press(app: TimedApp, key: str) -> tuple[float, float]:
    panel = app.query_one(CostPanel)
    before, rank = panel.text, app.session.recipe.adapter.r
    app.painted = asyncio.Event()
    started, busy = time.perf_counter(), time.thread_time()
    app._driver.send_message(events.Key(key, None))  # type: ignore[union-attr]
    while True:
        await asyncio.wait_for(app.painted.wait(), 5)
        app.painted.clear()
        if app.session.recipe.adapter.r != rank and panel.text != before:
            break
    taken = (time.perf_counter() - started) * 1000, (time.thread_time() - busy) * 1000
    app.painted = None
    return taken


def _summary(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {"median_ms": statistics.median(ranked), "p99_ms": ranked[int(len(ranked) * 0.99)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between keys; 0.05 is a key held down")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"keys": options.keys, "pause_seconds": options.pause}
    for model in MODELS:
        latency, work = asyncio.run(keystrokes(model, options.keys, options.pause))
        result[model] = {"painted": _summary(latency), "work": _summary(work)}
        for name, figures in result[model].items():
            print(f"{model:30} {name:8} median {figures['median_ms']:6.1f} ms   99 % {figures['p99_ms']:6.1f} ms")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
