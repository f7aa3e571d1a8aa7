"""Kills an engine that does not respond; its run keeps its last checkpoint."""

import asyncio
import contextlib

import psutil

from workbench.engine.client.process import engine_pid
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

_POLL_SECONDS = 0.02


async def kill_engine(home: Home) -> bool:
    """Kill the home's engine and the processes that it started, and wait until all have ended.

    Returns False if no engine was running.
    """
    pid = engine_pid(home)
    if pid is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        engine = psutil.Process(pid)
        # SIGKILL is not passed on to child processes, so each is killed.
        family = [engine, *engine.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        while any(_is_alive(process) for process in family):
            await asyncio.sleep(_POLL_SECONDS)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def what_is_kept(run: RunFolder) -> str:
    """What remains of a run after its engine is killed, as text that continues the run's name."""
    made = checkpoints(run.checkpoints)
    return f"keeps its checkpoint at step {made[-1].step}" if made else "has no checkpoint yet and restarts from step 0"
