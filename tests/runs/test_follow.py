"""A run that is watched on the command line ends with the reason why it ended."""

import asyncio
import subprocess
import sys

import psutil
import pytest

from tests.journals import JournalWriter
from workbench.commands.output.follow import follow
from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder


@pytest.fixture
def process():
    """A process that stands for the run's engine."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def _run_of(process, folder):
    run = RunFolder(folder / "run-01")
    run.path.mkdir()
    started = psutil.Process(process.pid).create_time()
    with JournalWriter(run.journal) as journal:
        journal.write("run_started", run="run-01", pid=process.pid, process_started=started)
        journal.write("step", step=3, loss=1.0)
    return run


def test_an_engine_that_is_killed_while_it_is_asked_has_died(process, tmp_path):
    """Its journal was still that of a live run when the question was sent."""

    async def is_live():
        process.kill()
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.2)
        return False

    with pytest.raises(WorkbenchError) as error:
        asyncio.run(follow(_run_of(process, tmp_path), is_live, "lines"))
    assert error.value.kind == "engine_died"
    assert "loraworkbench train --resume run-01" in error.value.cure


def test_a_journal_that_a_live_engine_no_longer_writes_is_that_of_a_full_disk(process, tmp_path):
    async def is_live():
        return False

    with pytest.raises(WorkbenchError) as error:
        asyncio.run(follow(_run_of(process, tmp_path), is_live, "lines"))
    assert error.value.kind == "run_lost"
    assert "after step 3" in error.value.message
