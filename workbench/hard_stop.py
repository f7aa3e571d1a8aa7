"""The second, harder stop: the engine is killed, and its run keeps the checkpoint that was written last."""

import asyncio
import contextlib

import psutil

from workbench.engine.process import engine_pid
from workbench.paths import Home
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder

_POLL_SECONDS = 0.02


async def kill_engine(home: Home) -> bool:
    """Kill the engine of this home with SIGKILL, which cannot be refused, and wait until it is gone.

    Returns False when there was none.
    """
    pid = engine_pid(home)
    if pid is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(_POLL_SECONDS)
    return True


def what_is_kept(run: RunFolder) -> str:
    """In words that follow on the run's name, what is left of it once its engine was killed."""
    made = checkpoints(run.checkpoints)
    return f"keeps its checkpoint of step {made[-1].step}" if made else "has no checkpoint yet and would begin anew"
