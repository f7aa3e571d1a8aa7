"""Keystroke to painted numbers on the Adapter screen: the rank is turned by a key, the costs beside it follow.

The real app runs at 120×40 without a terminal; what a frame would send to one is made all the same. The clock runs from
the key's arrival until the bytes are made that show the new count of parameters. Each key sets a rank that was not
priced before. Two rhythms: a key that is held down, and typing, where a key meets whatever the app does in the pauses,
such as pricing other settings. Three figures a key: the wait, with Textual's next frame (60 a second) in it; the
processor time that the app took meanwhile, in all its threads (what the wait is longer is other programs' doing); and,
right after it, how long a piece of Python takes that is always the same: how much that varies is the machine's doing.

    python -m bench.estimate [--keys 200] [--json FILE]

``docs/measurements/estimate.json`` holds a run on two cores; it says whether it ran ahead of other programs
(``chrt -f 5``), and how busy the machine was before.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import screens.app  # before Textual, which reads its settings once
from bench.circumstances import circumstances
from screens.adapter.cost_panel import CostPanel
from screens.app import WorkbenchApp
from screens.forms.row import SettingRow
from workbench.estimate.adapter.plan import plan_adapter
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

# isort: split
from textual import events

MODELS = ("meta-llama/Meta-Llama-3-70B", "Qwen/Qwen3-30B-A3B")
MEMORY = 80 * 10**9
WARM_UP = 4
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class TimedApp(WorkbenchApp):
    """Says when the bytes are made that show what is awaited."""

    # A relative path would be taken from this file's folder.
    CSS_PATH = Path(screens.app.__file__).with_name("app.tcss")
    awaited = ""
    painted: asyncio.Event

    def _display(self, screen: Any, renderable: Any) -> None:
        super()._display(screen, renderable)
        if hasattr(renderable, "render_segments"):
            sent = renderable.render_segments(self.console)
            if self.awaited and self.awaited in _ESCAPES.sub("", sent):
                self.painted.set()


def rhythm(name: str, keys: int) -> Iterator[float]:
    """Seconds to wait before each key: those of a key held down, or of somebody who types and looks."""
    pauses = random.Random(3)
    for _ in range(keys):
        yield 0.05 if name == "held" else pauses.uniform(0.08, 0.6)


def fixed_work() -> float:
    """Milliseconds that the same piece of Python takes, about as long as a key."""
    started = time.perf_counter()
    table: dict[int, str] = {}
    for number in range(25_000):
        table[number % 997] = str(number)
    return (time.perf_counter() - started) * 1000


async def keystrokes(model: str, name: str, count: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds until the numbers are painted, of work, and of what is always the same, for each key after some."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        app = TimedApp(Home(Path(folder)))
        app.sample_hardware = app.trace_steps = False
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.pause()
            app.session.typed_budget = MEMORY
            # Dropout is what PEFT refuses on fused experts.
            app.set_recipe({"model.source": model, "adapter.lora_dropout": 0.0})
            await app.action_show_tab("adapter")
            panel = app.query_one(CostPanel)
            async with asyncio.timeout(30):
                while app.session.skeleton is None or "trainable" not in panel.text:
                    await pilot.pause(0.05)
            app.query_one("#rank-r", SettingRow).focus()
            await pilot.pause(1)
            for pause in rhythm(name, count + WARM_UP):
                await asyncio.sleep(pause)
                figures.append((*await _press(app, app.session.skeleton, app.session.recipe), fixed_work()))
    waits, work, same = zip(*figures[WARM_UP:], strict=True)
    return list(waits), list(work), list(same)


async def _press(app: TimedApp, skeleton: Skeleton, recipe: Recipe) -> tuple[float, float]:
    """Set the rank one higher. What it comes to is known beforehand, by a way round the app's own memory."""
    plan = plan_adapter(skeleton, edit(recipe, {"adapter.r": recipe.adapter.r + 1}).adapter)
    app.painted, app.awaited = asyncio.Event(), f"{plan.trainable_parameters:,}"
    started, busy = time.perf_counter(), time.process_time()
    app._driver.send_message(events.Key("shift+right", None))  # type: ignore[union-attr]
    await asyncio.wait_for(app.painted.wait(), 5)
    taken = (time.perf_counter() - started) * 1000, (time.process_time() - busy) * 1000
    app.awaited = ""
    return taken


def _summary(values: list[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {
        "median_ms": round(statistics.median(ranked), 2),
        "p99_ms": round(ranked[int(len(ranked) * 0.99)], 2),
        "worst_ms": round(ranked[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {
        **circumstances(),
        "textual": metadata.version("textual"),
        "keys": options.keys,
        "ahead_of_other_programs": os.sched_getscheduler(0) == os.SCHED_FIFO,
        "models": {},
    }
    print(f"{options.keys} keys each, load {result['load']}")
    for model in MODELS:
        for name in ("held", "typed"):
            waits, work, same = asyncio.run(keystrokes(model, name, options.keys))
            told = {"painted": _summary(waits), "work": _summary(work), "always_the_same": _summary(same)}
            result["models"].setdefault(model, {})[name] = told
            for what, figures in told.items():
                cells = "   ".join(f"{label.removesuffix('_ms')} {value:5.1f}" for label, value in figures.items())
                print(f"{model:28} {name:6} {what:16} {cells} ms")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
