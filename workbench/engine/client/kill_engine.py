"""The second, harder stop: the engine is killed, and its run keeps the checkpoint that was written last."""

import asyncio
import contextlib

import psutil

from workbench.engine.client.process import engine_pid
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

_POLL_SECONDS = 0.02


async def kill_engine(home: Home) -> bool:
    """Kill the engine of this home, and the processes of a run that it launched, and wait until all are gone.

    SIGKILL cannot be refused, nor can it be handed on: what the engine started is killed one by one.

    Returns False when there was no engine.
    """
    pid = engine_pid(home)
    if pid is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        engine = psutil.Process(pid)
        family = [engine, *engine.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        while any(_lives(process) for process in family):
            await asyncio.sleep(_POLL_SECONDS)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def what_is_kept(run: RunFolder) -> str:
    """In words that follow on the run's name, what is left of it once its engine was killed."""
    made = checkpoints(run.checkpoints)
    return f"keeps its checkpoint at step {made[-1].step}" if made else "has no checkpoint yet and restarts from step 0"
