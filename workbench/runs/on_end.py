"""Calls the user's command at the end of a run, with the journal's last event as JSON on its standard input."""

import os
import shlex
import subprocess

from workbench.runs.folder import RunFolder

SECONDS = 600
"""How long the command may take."""
_TAIL = 2**20


def call_on_end(command: str, run: RunFolder) -> str:
    """Run a command without a shell, in the run's folder, and wait for it.

    Args:
        command: its words, quoted as for a shell.

    Returns:
        Why it failed, in words; empty if it did not. The run's result never depends on it.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        return f"on_end {command!r} cannot be split into words: {error}."
    if not words:
        return ""
    try:
        done = subprocess.run(
            words, input=last_line(run), cwd=run.path, capture_output=True, timeout=SECONDS, check=False
        )
    except OSError as error:
        return f"on_end could not start {words[0]!r}: {error.strerror}."
    except subprocess.TimeoutExpired:
        return f"on_end {words[0]!r} was ended after {SECONDS} s."
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"on_end {words[0]!r} ended with exit code {done.returncode}" + (f": {said[-1][:300]}" if said else ".")


def last_line(run: RunFolder) -> bytes:
    """The last complete line of the run's journal, an event as JSON; empty without one."""
    try:
        with run.journal.open("rb") as journal:
            journal.seek(max(0, journal.seek(0, os.SEEK_END) - _TAIL))
            text = journal.read()
    except OSError:
        return b""
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    return lines[-1] + b"\n" if lines else b""
