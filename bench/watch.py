"""What watching a run costs: the longest pause of the app's event loop, and the bytes it sends to the terminal.

The real app runs in a pseudo-terminal of 120×40 on its Train screen while the real engine trains the demo's model as
fast as the machine can. Then the run is stopped and the same figures are taken of a screen at rest. With ``--log`` the
run's log is open below the curve, and so many lines a second are written into it, as a talkative library does.

    python -m bench.watch [--seconds 40] [--log LINES] [--home DIR] [--json FILE]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from bench.terminal import Terminal
from workbench.engine.client.client import EngineClient
from workbench.engine.client.process import ensure_engine, stop_engine
from workbench.engine.client.protocol import StopRequest
from workbench.engine.client.requests import train_request
from workbench.recipe.presets import load_preset
from workbench.recipe.text import edit
from workbench.runs.folder import find_run, summarise
from workbench.storage.paths import Home

REST_SECONDS = 10


async def measure(home: Home, seconds: float, log_lines: float = 0) -> dict[str, float]:
    await ensure_engine(home)
    client = EngineClient(home)
    recipe = edit(load_preset("demo", home), {"training.max_steps": 10_000})
    async for progress in client.fetch(recipe.model):
        print(progress.phase, progress.fraction, progress.detail)
    run = find_run(home, (await client.train(train_request(recipe))).run)
    while summarise(run).step < 2:
        await asyncio.sleep(0.2)
    beats = home.root / "beats.json"
    app = [sys.executable, str(Path(__file__).with_name("watched_app.py")), str(home.root), str(beats)]
    with Terminal(app) as terminal:
        terminal.wait_for("loraworkbench", seconds=20)
        await asyncio.to_thread(terminal.read, 3)
        terminal.send("5")
        await asyncio.to_thread(terminal.read, 4)
        talk = asyncio.create_task(_talk(run.log, log_lines)) if log_lines else None
        if talk:
            terminal.send("l")
            await asyncio.to_thread(terminal.wait_for, "engine.log of this run", seconds=10)
            await asyncio.to_thread(terminal.read, 4)
        _reset(beats)
        before, step = terminal.bytes_written, summarise(run).step
        await asyncio.to_thread(terminal.read, seconds)
        watching = terminal.bytes_written - before
        steps = summarise(run).step - step
        pauses = json.loads(beats.read_text())
        if talk:
            talk.cancel()
        await client.stop(StopRequest(save=False))
        while (await client.status()).state != "idle":
            await asyncio.sleep(0.2)
        await asyncio.to_thread(terminal.read, 6)
        before = terminal.bytes_written
        await asyncio.to_thread(terminal.read, REST_SECONDS)
        resting = terminal.bytes_written - before
    await client.close()
    await stop_engine(home)
    return {
        "longest_pause_ms": pauses["longest"] * 1000,
        "p99_pause_ms": pauses["p99"] * 1000,
        "bytes_per_second_watching": watching / seconds,
        "bytes_per_second_at_rest": resting / REST_SECONDS,
        "steps_watched": steps,
        "log_lines_per_second": log_lines,
        "seconds": seconds,
    }


async def _talk(log: Path, lines_a_second: float) -> None:
    """Write lines of about 80 characters into a log until cancelled."""
    number = 0
    while True:
        number += 1
        with log.open("a", encoding="utf-8") as file:
            file.write(
                f"{number:7d}  loss {1 / number:.9f}  grad_norm {number * 7919 % 10007 / 1e4:.4f}  " + "~" * 30 + "\n"
            )
        await asyncio.sleep(1 / lines_a_second)


def _reset(beats: Path) -> None:
    """The app starts its measurement anew when the file is gone, and writes it each second."""
    beats.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument(
        "--log", type=float, default=0, metavar="LINES", help="lines a second in the log, which is open"
    )
    parser.add_argument("--home", type=Path, help="a home that already holds the model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Home((options.home or Path(folder)).absolute()), options.seconds, options.log))
    print(f"longest pause of the event loop  {result['longest_pause_ms']:7.1f} ms    (goal: at most 50)")
    print(f"99th percentile                  {result['p99_pause_ms']:7.1f} ms")
    print(f"to the terminal while watching   {result['bytes_per_second_watching']:7.0f} B/s   (goal: at most 4000)")
    print(f"to the terminal at rest          {result['bytes_per_second_at_rest']:7.0f} B/s   (goal: under 100)")
    print(f"steps trained meanwhile          {result['steps_watched']:7.0f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
