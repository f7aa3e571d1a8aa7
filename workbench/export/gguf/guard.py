"""Runs a program that ends with the process that asked for it, whatever ends that one.

An export is cancelled by killing its helper process, which then cannot end the programs that it started. So it starts
them through this module: ``python -m workbench.export.gguf.guard REQUEST``, with a pipe as standard input. The pipe
closes when the helper process ends, and the program is killed.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from workbench.errors import WorkbenchError

# The last lines of a program's output that an error shows, and how much of the output is kept, in characters.
_SHOWN_LINES = 4
_KEPT = 20_000


def run_guarded(
    command: Sequence[str], what: str, heard: Callable[[str], None], environment: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end; returns the end of what it wrote.

    Args:
        what: names the program in an error.
        heard: called with each line of its output, and each state of a progress bar.
        environment: variables to set.

    Raises:
        WorkbenchError: it cannot be started, or failed; with the end of its output. Kind ``program_failed``.
    """
    path = os.environ.get("PYTHONPATH", "")
    request = {"command": list(command), "environment": {"PYTHONPATH": path, **(environment or {})}}
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "workbench.export.gguf.guard", json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, path]))},
    )
    assert process.stdout
    said = pending = ""
    with process:
        while block := os.read(process.stdout.fileno(), 4096):
            *lines, pending = re.split(r"[\r\n]", pending + block.decode("utf-8", "replace"))
            for line in filter(None, lines):
                heard(line)
                said = f"{said}\n{line}"[-_KEPT:]
    said = f"{said}\n{pending}".strip()
    if process.returncode != 0:
        shown = [line for line in said.splitlines() if line.strip()][-_SHOWN_LINES:]
        reason = " ".join(shown) or f"exit status {process.returncode}"
        raise WorkbenchError(f"{what} failed: {reason}", kind="program_failed")
    return said


def _main() -> int:
    """Run the requested program, and kill it when standard input closes."""
    request = json.loads(sys.argv[1])
    command = request["command"]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env={**os.environ, **request["environment"]},
            start_new_session=True,
        )
    except OSError as error:
        sys.stdout.write(f"{command[0]} cannot be started: {error.strerror or error}\n")
        return 127
    threading.Thread(target=_kill_at_end, args=(process,), daemon=True).start()
    return process.wait()


def _kill_at_end(process: "subprocess.Popen[bytes]") -> None:
    # os.read instead of sys.stdin: a thread that waits in sys.stdin breaks the interpreter's shutdown.
    while os.read(0, 4096):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main())
