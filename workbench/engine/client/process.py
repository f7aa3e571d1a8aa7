"""Starts, finds and stops the engine's process, which is shared by all terminals of a home."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from workbench.engine.client.client import EngineClient
from workbench.engine.client.protocol import ALREADY_RUNNING, EngineStatus, ShutdownRequest
from workbench.errors import WorkbenchError
from workbench.storage.paths import Home, private_folder

START_SECONDS = 60.0
_LOG_LINES = 12

_started: dict[int, subprocess.Popen[bytes]] = {}
"""Engines that this process started, by process id: only the parent can read their exit code."""


async def find_engine(home: Home) -> EngineStatus | None:
    """The status of the home's engine; None if none answers."""
    client = EngineClient(home)
    try:
        return await client.status()
    except WorkbenchError:
        return None
    finally:
        await client.close()


async def ensure_engine(home: Home) -> EngineStatus:
    """Start the home's engine if none is running, and wait until it answers. It outlives the terminal.

    Raises:
        WorkbenchError: it did not start; the message says why, and ends with the last lines of its log.
    """
    if status := await find_engine(home):
        return status
    log_size_before = _size(home.engine_log)
    process = _spawn(home)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        if status := await find_engine(home):
            return status
        code = process.poll()
        if code == ALREADY_RUNNING:
            # Another terminal has just started an engine, or the previous one has not quite ended.
            await asyncio.sleep(0.5)
            process = _spawn(home)
        elif code is not None:
            raise _start_error(code, last_lines(home.engine_log, since=log_size_before))
    raise WorkbenchError(
        f"The engine did not answer within {START_SECONDS:.0f} s.\n{last_lines(home.engine_log)}",
        "Retry with `loraworkbench engine restart`; `loraworkbench doctor` checks for causes.",
        kind="engine_start",
    )


async def stop_engine(home: Home, *, seconds: float = 60.0) -> bool:
    """Stop the engine after stopping and saving a live run; kill it if it does not end in time.

    Returns False if none was running.
    """
    pid = engine_pid(home)
    if pid is None:
        return False
    client = EngineClient(home)
    with contextlib.suppress(WorkbenchError):
        await client.shutdown(ShutdownRequest(stop=True))
    await client.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        deadline = time.monotonic() + seconds
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                process.kill()
            await asyncio.sleep(0.05)
    return True


def engine_pid(home: Home) -> int | None:
    """Process id of the home's engine, whether it answers or not; None if none is running."""
    try:
        pid = int((home.engine / "lock").read_text())
        command = psutil.Process(pid).cmdline()
        # Process ids are reused, perhaps by the engine of another home.
        is_ours = "workbench.engine.daemon.server" in command and home.root.samefile(command[-1])
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if is_ours else None


async def is_training(home: Home, client: EngineClient, run: str) -> bool:
    """Whether the home's engine trains the run with this id; an engine too busy to answer is taken to do so."""
    try:
        return (await client.status()).run == run
    except WorkbenchError:
        return engine_pid(home) is not None


def exit_code(pid: int, *, seconds: float = 0.0) -> int | None:
    """The exit code of an engine; None if it is still running, or if another process started it.

    Args:
        seconds: how long to wait for its end, as its connections break a moment earlier.
    """
    process = _started.get(pid)
    if process is None:
        return None
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def describe_exit(code: int | None) -> str:
    """``exit code 1``, or the name of the signal that ended a process."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def last_lines(log: Path, count: int = _LOG_LINES, *, since: int = 0) -> str:
    """The last lines of a log file, ignoring its first ``since`` bytes; empty if it does not exist."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 16384))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])
    except OSError:
        return ""


def _start_error(code: int, log: str) -> WorkbenchError:
    """The error for an engine that ended before it answered."""
    from workbench.failures.diagnose import explain_death

    died = explain_death(code, log)
    return WorkbenchError(
        f"The engine ended while starting ({describe_exit(code)}). {died.message}\n{log}",
        f"{died.cure} `loraworkbench doctor` checks for causes.",
        kind="engine_start",
    )


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _spawn(home: Home) -> subprocess.Popen[bytes]:
    try:
        private_folder(home.engine)
        with home.engine_log.open("ab") as log:
            # -P: a file named torch.py in the current folder must not be imported.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workbench.engine.daemon.server", "--home", str(home.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
            )
            _started[process.pid] = process
            return process
    except OSError as error:
        raise WorkbenchError(
            f"Cannot use {home.engine}: {error.strerror or error}.",
            "Set a writable folder with --home or LORAWORKBENCH_HOME.",
            kind="home",
        ) from None
