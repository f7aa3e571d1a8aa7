"""What much costs: long journals, a long history, a large tree, many records; in time and memory, and for one more.

Journals are written in the form that the engine writes, with an evaluation and a checkpoint each thousand steps, into a
temporary folder. The real app runs on a terminal of 120×40, each measurement in a process of its own. Seconds are those
from the key to what stands on the screen. Memory is what the process has more of than before the key: at its peak, and
when all is read.

    python -m bench.growth [--steps 10000 100000 1000000] [--runs 10 100 1000] [--records N ...] [--json FILE]

A million steps are 450 MB on disk, a thousand runs 400 MB; both are removed afterwards.
"""

import argparse
import asyncio
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.circumstances import circumstances
from tests.journals import JournalWriter, read_events
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, to_yaml
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

MODELS = ("meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3-70B")
STEPS_BETWEEN_EVALUATIONS = 1000

# One run in so many is long; the others have a few hundred steps.
ONE_LONG_IN = 200
LONG_STEPS = 100_000

_STEP = (
    '{{"seq":{seq},"time":{time:.3f},"event":"step","step":{step},"max_steps":{steps},"epoch":{epoch:.4f},"loss":{loss!r},'
    '"learning_rate":{rate!r},"grad_norm":{norm!r},"token_accuracy":{accuracy!r},"tokens":{tokens},'
    '"tokens_per_second":3123.12,"seconds":0.3122,"vram":{{"allocated":12345678901,"reserved":22345678901,'
    '"peak":22345678901}},"host":{{"rss":1234567890,"peak":2345678901}},"eta_seconds":{eta:.1f}}}\n'
)


def write_run(home: Home, steps: int, number: int = 1) -> RunFolder:
    """A run that has finished after so many steps. Its beginning and its end are written as the engine writes them."""
    run = RunFolder(home.runs / f"run-{number:02d}")
    run.path.mkdir(parents=True)
    run.recipe_file.write_text(to_yaml(edit(Recipe(), {"training.max_steps": steps})), encoding="utf-8")
    with JournalWriter(run.journal) as journal:
        journal.write(
            "run_started", run=run.id, model=MODELS[0], recipe=run.recipe().as_dict(), pid=1, process_started=0.0
        )
        journal.write("phase", phase="preparing", fraction=None, detail="", base="nf4", trainable_parameters=41_943_040)
        journal.write("eval", step=0, loss=3.0, perplexity=20.1, best=False)
        journal.write("phase", phase="training", fraction=0.0, detail="", max_steps=steps)
    last = read_events(run.journal)[-1]
    with run.journal.open("a", encoding="ascii") as file:
        file.writelines(_lines(steps, last["seq"] + 1, last["time"]))
    with JournalWriter(run.journal) as journal:
        journal.write("eval", step=steps, loss=1.0, perplexity=2.718, best=True)
        journal.write("run_ended", reason="finished", run=run.id, adapter=str(run.adapter), measured=None)
    return run


def _lines(steps: int, seq: int, now: float) -> Any:
    draw = random.Random(steps).random
    for step in range(1, steps + 1):
        loss = 0.8 + 2.2 / (1 + step / (steps / 20)) + 0.3 * draw()
        yield _STEP.format(
            seq=seq, time=now + step / 3, step=step, steps=steps, epoch=3 * step / steps, loss=loss, rate=2e-4 * draw(),
            norm=draw(), accuracy=draw(), tokens=step * 975, eta=(steps - step) / 3,
        )  # fmt: skip
        seq += 1
        if step % STEPS_BETWEEN_EVALUATIONS == 0:
            rare = {"event": "eval", "step": step, "loss": loss, "perplexity": 2.7**loss, "best": False}
            kept = {"event": "checkpoint", "step": step, "path": f"/runs/checkpoints/checkpoint-{step}"}
            for event in (rare, kept):
                yield json.dumps({"seq": seq, "time": now, **event}, separators=(",", ":")) + "\n"
                seq += 1


def write_history(home: Home, runs: int) -> None:
    """Runs of some hundred steps, and a long one now and then."""
    draw = random.Random(runs)
    for number in range(runs):
        write_run(home, LONG_STEPS if number % ONE_LONG_IN == 0 else draw.randint(100, 900), number + 1)


# -- in a process of its own ------------------------------------------------------------------------------------------


class Screen:
    """The app on a terminal that nobody sees."""

    def __init__(self, app: Any, pilot: Any) -> None:
        self.app = app
        self._pilot = pilot

    @property
    def words(self) -> str:
        """What stands on the screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async def seconds(self, key: str, *conditions: Callable[[], object]) -> list[float]:
        """Press a key; seconds until each condition holds, in their order."""
        started, found = time.perf_counter(), []
        pressed = asyncio.create_task(self._pilot.press(key)) if key else None
        for condition in conditions:
            while not condition():
                if time.perf_counter() - started > 120:
                    raise TimeoutError(self.words)
                await asyncio.sleep(0.005)
            found.append(round(time.perf_counter() - started, 3))
        if pressed:
            await pressed
        return found


class Memory:
    """What this process has more of than at first."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
        self._before = self._read("VmRSS")

    def megabytes(self, which: str) -> float:
        return round((self._read(which) - self._before) / 1e6, 1)

    @staticmethod
    def _read(which: str) -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{which}:"))


async def on_screen(home: Home, measure: Callable[[Screen], Any]) -> dict[str, Any]:
    """Measure something in the app of a home."""
    from screens.app import WorkbenchApp

    app = WorkbenchApp(home)
    app.trace_steps = False
    async with app.run_test(size=(120, 40)) as pilot:
        screen = Screen(app, pilot)
        await screen.seconds("", lambda: app.pane_in_front is not None and app.session.skeleton is not None)
        await pilot.pause(1.0)
        figures: dict[str, Any] = await measure(screen)
        return figures


async def journal(screen: Screen) -> dict[str, Any]:
    """The one run of the home: its line of the history, then its page, then the page once more."""
    from screens.runs.table import RunTable

    (line,) = await screen.seconds(
        "7", lambda: list(screen.app.query(RunTable)) and "finished" in screen.words and "20.1" in screen.words
    )
    await screen.seconds("", lambda: _exact(screen) == 1)
    await asyncio.sleep(1.0)
    memory = Memory()
    chart, whole = await screen.seconds("enter", *_page_of(screen))
    figures = {
        "line_seconds": line,
        "chart_seconds": chart,
        "whole_seconds": whole,
        "peak_mb_more": memory.megabytes("VmHWM"),
        "mb_more": memory.megabytes("VmRSS"),
    }
    run = RunFolder(screen.app.session.home.runs / "run-01")
    started = time.perf_counter()
    with JournalWriter(run.journal) as writer:
        writer.write("note")
    return figures | {"writer_ms": round((time.perf_counter() - started) * 1000, 1)}


def _exact(screen: Screen) -> int:
    """How many lines of the history are not rough."""
    from screens.runs.table import RunTable

    table, runs = screen.app.query_one(RunTable), screen.app.session.home.runs
    lines = [table.get(run.name) for run in runs.iterdir()]
    return sum(1 for line in lines if line is not None and not line.summary.is_partial)


def _page_of(screen: Screen) -> tuple[Callable[[], object], Callable[[], object]]:
    pane = screen.app.pane_in_front

    def is_drawn() -> bool:
        return pane.shown_run is not None and bool(pane.shown_run.replay.curves.train) and "━ train" in screen.words

    def is_whole() -> bool:
        return pane.shown_run is not None and not pane.shown_run.replay.is_partial and "reading" not in screen.words

    return is_drawn, is_whole


async def history(screen: Screen) -> dict[str, Any]:
    """All runs of the home."""
    from screens.runs.table import RunTable

    runs = sum(1 for _ in screen.app.session.home.runs.iterdir())
    memory = Memory()

    def lines() -> int:
        return screen.app.query_one(RunTable).row_count if list(screen.app.query(RunTable)) else 0

    first, every, exact = await screen.seconds(
        "7",
        lambda: lines() >= min(runs, 30) and "finished" in screen.words,
        lambda: lines() == runs,
        lambda: _exact(screen) == runs,
    )
    return {
        "screenful_seconds": first,
        "all_seconds": every,
        "exact_seconds": exact,
        "peak_mb_more": memory.megabytes("VmHWM"),
    }


async def tree(screen: Screen, model: str) -> dict[str, Any]:
    """The module tree of a model of the catalog, and all of it unfolded."""
    from screens.architecture.module_tree import ModuleTree

    app = screen.app
    memory = Memory()
    app.set_recipe(edit(app.session.recipe, {"model.source": model}).as_dict())
    await screen.seconds("", lambda: app.session.recipe.model.source == model and app.session.skeleton is not None)
    (opened,) = await screen.seconds("2", lambda: "LlamaDecoderLayer" in screen.words and "q_proj" in screen.words)
    root = app.query_one(ModuleTree).root

    def unfold() -> bool:
        nodes = [root]
        closed = []
        while nodes:
            node = nodes.pop()
            closed += [node] if node.allow_expand and not (node.is_expanded and node.children) else []
            nodes += node.children
        for node in closed:
            node.expand()
        return not closed

    (unfolded,) = await screen.seconds("", lambda: unfold() and "lm_head" in screen.words)
    return {
        "parameters": app.session.skeleton.parameters,
        "open_seconds": opened,
        "unfold_seconds": unfolded,
        "mb_more": memory.megabytes("VmRSS"),
    }


# -- the measurements -------------------------------------------------------------------------------------------------


def apart(kind: str, home: Path, model: str = "") -> dict[str, Any]:
    """A measurement of a home in a process of its own."""
    command = [sys.executable, "-m", "bench.growth", "--measure", kind, str(home), *([model] if model else [])]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measured(kind: str, home: Path, model: str) -> dict[str, Any]:
    if kind == "tree":
        return asyncio.run(on_screen(Home(home), lambda screen: tree(screen, model)))
    return asyncio.run(on_screen(Home(home), {"journal": journal, "history": history}[kind]))


def listing_seconds(home: Path) -> float:
    """``loraworkbench runs`` beyond what the command takes to start."""
    return round(_command_seconds(home, "runs") - _command_seconds(home, "runs", "--help"), 2)


def _command_seconds(home: Path, *arguments: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "workbench.cli", "--home", str(home), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def long_journal(steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Home(Path(folder)), steps)
        size = run.journal.stat().st_size
        first = apart("journal", Path(folder))
        again = apart("journal", Path(folder))
    return {
        "steps": steps,
        "megabytes": round(size / 1e6, 1),
        **first,
        "line_again_seconds": again["line_seconds"],
        "whole_us_a_step": round(first["whole_seconds"] / steps * 1e6, 2),
    }


def long_history(runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_history(Home(home), runs)
        first = apart("history", home)
        again = apart("history", home)
        _forget(home)
        listed = listing_seconds(home)
        listed_again = listing_seconds(home)
    figures = {"runs": runs, **first, "screenful_again_seconds": again["screenful_seconds"]}
    figures["all_again_seconds"] = again["exact_seconds"]
    return figures | {"command_seconds": listed, "command_again_seconds": listed_again}


def _forget(home: Path) -> None:
    """As if none of the runs had ever been looked at."""
    for kept in home.glob("runs/*/.summary.json"):
        kept.unlink()


def large_model(model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {"model": model.rpartition("/")[2], **apart("tree", Path(folder), model)}


def many_records(rows: int) -> dict[str, Any]:
    from bench.million_rows import figures_of

    return {"records": rows, **figures_of(rows)}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table, a line a size."""
    if not rows:
        return
    print(f"\n{title}")
    widths = {name: max(len(name), *(len(_cell(row[name])) for row in rows)) for name in rows[0]}
    print("  ".join(name.rjust(width) for name, width in widths.items()))
    for row in rows:
        print("  ".join(_cell(row[name]).rjust(width) for name, width in widths.items()))


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--runs", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--records", type=int, nargs="*", default=[], help="see million_rows.py")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, home, *model = options.measure
        print(json.dumps(measured(kind, Path(home), *(model or [""]))))
        return
    result: dict[str, Any] = dict(circumstances())
    for name, title, measure, sizes in (
        ("journal", "A run of so many steps", long_journal, options.steps),
        ("history", "A history of so many runs", long_history, options.runs),
        ("tree", "The tree of a model", large_model, options.models),
        ("records", "So many records", many_records, options.records),
    ):
        result[name] = [measure(size) for size in sizes]
        show(title, result[name])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except WorkbenchError as error:
        raise SystemExit(str(error)) from None
