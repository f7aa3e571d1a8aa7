"""The harder stop leaves nothing running, and says what is left of the run."""

import asyncio
import subprocess
import sys

import psutil

from workbench.engine.client import kill_engine as hard_stop
from workbench.engine.client.kill_engine import kill_engine, what_is_kept
from workbench.runs.checkpoints import write_checkpoint
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

# Waits with a process of another session beside it, as an engine does with the ranks of a run.
_FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_what_the_engine_launched_is_killed_with_it(tmp_path, monkeypatch):
    engine = subprocess.Popen([sys.executable, "-c", _FAMILY], stdout=subprocess.PIPE, text=True)
    launched = psutil.Process(int(engine.stdout.readline()))
    monkeypatch.setattr(hard_stop, "engine_pid", lambda _: engine.pid)
    assert asyncio.run(kill_engine(Home(tmp_path)))
    assert engine.wait(timeout=60) < 0
    assert not launched.is_running() or launched.status() == psutil.STATUS_ZOMBIE


def test_without_an_engine_there_is_nothing_to_kill(tmp_path):
    assert not asyncio.run(kill_engine(Home(tmp_path)))


def test_it_says_which_checkpoint_is_kept(tmp_path):
    run = RunFolder(tmp_path)
    assert "restarts from step 0" in what_is_kept(run)
    for step in (20, 100):
        write_checkpoint(run.checkpoints, step, lambda folder: folder.mkdir(), keep=2)
    assert what_is_kept(run) == "keeps its checkpoint at step 100"
