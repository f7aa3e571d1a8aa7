"""Runs exported scripts in processes that know nothing of this project."""

import os
import subprocess
import sys
from pathlib import Path

# Imports what a script imports, and runs each script in a fork of itself.
_SERVER = """
import os, runpy, sys, traceback
import bitsandbytes, datasets, peft, torch, transformers, trl
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer

for line in sys.stdin:
    folder, name = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for stream, file in ((1, "printed.txt"), (2, "errors.txt")):
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        code = 1
        try:
            sys.argv = [name]
            runpy.run_path(name, run_name="__main__")
            assert "workbench" not in sys.modules
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def in_a_fresh_process(folder: Path, name: str) -> str:
    """Run a script with a Python of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", name],
        check=False, capture_output=True, text=True, cwd=folder, env=_environment(), timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Scripts:
    """Runs scripts in forks of a process that has imported their libraries, which takes it longer than to train."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment(),
        )  # fmt: skip

    def run(self, folder: Path, name: str) -> str:
        """Run a script in its folder; returns what it printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\t{name}\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline().strip()
        assert code == "0", (folder / "errors.txt").read_text()[-3000:]
        return (folder / "printed.txt").read_text()

    def close(self) -> None:
        self._process.communicate()
