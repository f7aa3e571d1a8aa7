"""Runs one part in this process: ``python -m bench.gpu.run_part MODULE SETTINGS SHARED FOLDER OUT SECONDS [--toy]``.

``SIGUSR1`` writes where every thread is into the log, which :mod:`bench.gpu.schedule` asks for before it ends a part.
"""

import argparse
import faulthandler
import json
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path

from bench.gpu.part import Work
from workbench.storage.atomic import write_text

TRACEBACK = "traceback"
"""The key of a part's figures under which it leaves the traceback of what ended it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("settings", type=json.loads)
    for name in ("shared", "folder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    work = Work(options.shared, options.folder, options.out, options.seconds, toy=options.toy)
    try:
        import_module(options.module).measure(work, **options.settings)
    except BaseException:
        traceback.print_exc()
        figures = work.figures | {TRACEBACK: traceback.format_exc()}
        write_text(options.out, json.dumps(figures, default=str))
        sys.exit(1)


if __name__ == "__main__":
    main()
