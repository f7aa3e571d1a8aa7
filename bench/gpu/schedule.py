"""Runs parts one after the other within a budget of seconds, and keeps one file of results up to date."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from bench.circumstances import circumstances
from bench.gpu.part import Here, Part
from bench.gpu.run_part import TRACEBACK
from workbench.storage.atomic import write_text

_TOKEN = "BENCH_GPU_PART"
# In tiny matrices a second thread only waits.
_TOY = {"OMP_NUM_THREADS": "1"}
_LOG_CHARACTERS = 4000
# The limits are those of a machine with a GPU.
_SLOWER_WITHOUT_GPU = 10
# Time in which a part that is ended can still write where its threads are.
_LAST_WORDS = 10.0


class Results:
    """The file of results: circumstances, and by part its state, seconds, figures, traceback and end of the log.

    States: ``done``, ``failed``, ``timed out``, ``running``, ``left out`` (not enough of the budget left), ``not run``
    (``why`` says why it cannot be). A file of an earlier call is continued: parts that are done stay.
    """

    def __init__(self, file: Path, here: Here, seconds: float) -> None:
        self._file = file
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if found.get("toy", here.toy) != here.toy:
            raise SystemExit(
                f"{file} is of {'a toy' if found['toy'] else 'a whole'} run; name another file with --out."
            )
        self.parts: dict[str, dict[str, Any]] = found.get("parts", {})
        self._about = {**circumstances(), "toy": here.toy, "gpu": here.has_gpu, "budget_seconds": seconds}

    def is_done(self, part: Part) -> bool:
        return self.parts.get(part.name, {}).get("state") == "done"

    def put(self, part: Part, state: str, **fields: Any) -> None:
        self.parts[part.name] = {"state": state, "does": part.does, "limit": part.seconds, **fields}
        text = json.dumps({**self._about, "parts": self.parts}, indent=1, default=str)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, text + "\n")


def run_parts(
    parts: Sequence[Part],
    results: Results,
    here: Here,
    shared: Path,
    seconds: float,
    say: Callable[[str], None],
) -> bool:
    """Run the parts that are not done, in order; returns whether all of them that could be run are done."""
    end = time.monotonic() + seconds
    for part in parts:
        if results.is_done(part):
            say(f"{part.name:16s} done before")
            continue
        left = end - time.monotonic()
        if why := part.why_not(here):
            results.put(part, "not run", why=why)
        elif left < part.least:
            results.put(part, "left out", why=f"{left:.0f} s of the budget were left; it needs {part.least:.0f}")
        else:
            results.put(part, "running")
            limit = part.seconds * (_SLOWER_WITHOUT_GPU if here.toy else 1)
            results.put(part, **run_part(part, here, shared, min(limit, left)))
        outcome = results.parts[part.name]
        about = f"{outcome['seconds']:.1f} s" if "seconds" in outcome else outcome["why"]
        say(f"{part.name:16s} {outcome['state']}, {about}")
    named = [results.parts[part.name]["state"] for part in parts]
    return all(state in ("done", "not run") for state in named)


def run_part(part: Part, here: Here, shared: Path, seconds: float) -> dict[str, Any]:
    """Run one part in a process of its own, and end it and all that it started after so many seconds."""
    folder = shared / f"{part.name}-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    out, log, token = folder / "figures.json", folder / "log", uuid4().hex
    module = part.module if "." in part.module else f"bench.gpu.parts.{part.module}"
    command = [sys.executable, "-m", "bench.gpu.run_part", module, json.dumps(part.settings)]
    command += [str(shared), str(folder), str(out), str(seconds), *(["--toy"] if here.toy else [])]
    started = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
            env={**os.environ, **(_TOY if here.toy else {}), _TOKEN: token, "PYTHONUNBUFFERED": "1"},
        )
        try:
            code = ended(process, seconds)
            if code is None:
                _ask_where_it_is(process, log)
        finally:
            _end_all(token)
            process.wait()
    figures = _figures(out)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - started, 2)}
    if traceback := figures.pop(TRACEBACK, None):
        found["traceback"] = traceback
    if code != 0:
        found["exit"] = code
        found["log"] = log.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:]
    state = "timed out" if code is None else "failed" if code else "done"
    return {"state": state, **found, "figures": figures}


def ended(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """The exit code of a part; None if it has not ended after so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _ask_where_it_is(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Let a part write the stack of each thread into its log; one that does not listen yet dies of it.

    It is asked twice: when it begins to write the second time, the first is whole.
    """
    end = time.monotonic() + _LAST_WORDS
    for times in (1, 2):
        process.send_signal(signal.SIGUSR1)
        while process.poll() is None and time.monotonic() < end and _times_written(log) < times:
            time.sleep(0.05)


def _times_written(log: Path) -> int:
    """How often the stack of the thread that comes first was written."""
    stacks = [line for line in log.read_bytes().splitlines() if line.endswith(b"(most recent call first):")]
    return stacks.count(stacks[0]) if stacks else 0


def _figures(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found
    return {}


def _end_all(token: str) -> None:
    """Kill every process that a part started and left, engines in sessions of their own too."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(_TOKEN) == token:
                process.kill()
