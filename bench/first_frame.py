"""Time from the command to the first painted frame: ours against a bare Textual app with a header and a footer.

Both run in a pseudo-terminal of 120×40, one after the other, several times; the figure is the ratio of the medians.

    python -m bench.first_frame [--repeats 9] [--json FILE]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.circumstances import circumstances
from bench.terminal import Terminal

BARE = """
from textual.app import App
from textual.widgets import Footer, Header
class Bare(App):
    TITLE = "bare app"
    BINDINGS = [("q", "quit", "Quit")]
    def compose(self):
        yield Header()
        yield Footer()
Bare().run()
"""


def seconds_to(marker: str, command: list[str]) -> float:
    """Start a command in a pseudo-terminal; seconds until its screen shows ``marker``."""
    started = time.perf_counter()
    with Terminal(command) as terminal:
        terminal.wait_for(marker, seconds=30)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bare: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        app = [sys.executable, "-m", "workbench.cli", "--home", home]
        for repeat in range(options.repeats + 1):
            first = seconds_to("bare app", [sys.executable, "-c", BARE])
            second = seconds_to("loraworkbench", app)
            # The first round fills the caches of the file system.
            if repeat:
                bare.append(first)
                ours.append(second)
    result = {
        "bare_seconds": statistics.median(bare),
        "ours_seconds": statistics.median(ours),
        "ratio": statistics.median(ours) / statistics.median(bare),
        "repeats": options.repeats,
        **circumstances(),
    }
    print(f"bare Textual app  {result['bare_seconds'] * 1000:7.0f} ms")
    print(f"loraworkbench     {result['ours_seconds'] * 1000:7.0f} ms")
    print(f"ratio             {result['ratio']:7.2f}   (goal: at most 1.5)")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
