"""The app with a heart beat: every 5 ms a task of its event loop wakes, and how late it wakes is the loop's pause."""

import asyncio
import json
import sys
import time
from pathlib import Path

import screens.app
from screens.app import WorkbenchApp
from workbench.storage.paths import Home

BEAT_SECONDS = 0.005


class WatchedApp(WorkbenchApp):
    # A relative path would be taken from this file's folder.
    CSS_PATH = Path(screens.app.__file__).with_name("app.tcss")

    def __init__(self, home: Home, report: Path) -> None:
        super().__init__(home)
        self._report = report

    def on_mount(self) -> None:
        self._heart = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        late: list[float] = []
        written = time.perf_counter()
        while True:
            before = time.perf_counter()
            await asyncio.sleep(BEAT_SECONDS)
            now = time.perf_counter()
            late.append(now - before - BEAT_SECONDS)
            if now - written >= 1.0:
                if not self._report.exists():
                    late = late[-1:]
                written = now
                figures = {"longest": max(late), "p99": sorted(late)[int(len(late) * 0.99)], "beats": len(late)}
                self._report.write_text(json.dumps(figures))


if __name__ == "__main__":
    WatchedApp(Home(Path(sys.argv[1])), Path(sys.argv[2])).run()
