"""What the tests of child processes let them do."""

import ctypes
import os
import time
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.child import bars_as_progress, report


def add(left: int, right: int) -> int:
    print("a library prints")
    os.write(1, b"native code prints\n")
    os.write(2, b"and complains\n")
    report("adding", 0.5, "half")
    return left + right


def refuse() -> None:
    raise WorkbenchError("No ünïcode here.", "Write plainly.", kind="odd")


def fail() -> None:
    raise MemoryError


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    print("last words")
    os._exit(7)


def wait(file: str) -> None:
    Path(file).write_text(str(os.getpid()))
    report("waiting")
    time.sleep(60)


def draw_bars() -> None:
    from tqdm.auto import tqdm

    with bars_as_progress("counting"):
        for _ in tqdm(range(4), mininterval=0):
            pass
    with bars_as_progress("downloading", total_bytes=4_000_000):
        for _ in tqdm(range(4), mininterval=0):
            pass
        with tqdm(total=1, unit="B", mininterval=0) as bar:
            bar.update(3_000_000)
