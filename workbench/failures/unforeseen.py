"""Reports an exception that no rule explains, as a fault of loraworkbench, and logs its traceback."""

import os
import time
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb, format_exception

from workbench.errors import WorkbenchError

KIND = "unforeseen"

_TEXT_LIMIT = 300
# How many trailing parts of a source file's path are shown.
_PATH_PARTS = 3


def unforeseen(error: BaseException, doing: str, log: Path | None) -> WorkbenchError:
    """The error to show for an exception that no rule explains; appends the traceback to the log.

    Args:
        doing: what was being done, to complete "loraworkbench failed while …": ``"starting the run"``.
        log: the file for the traceback; None if the caller has none and an outer caller logs it.
    """
    if log is not None:
        write_traceback(error, doing, log)
    return unforeseen_text(type(error).__name__, str(error), doing, log, _place(error))


def unforeseen_text(name: str, text: str, doing: str, log: Path | None, place: str = "") -> WorkbenchError:
    """As :func:`unforeseen`, if only the exception's class name and text are known.

    Args:
        place: file and line that raised it.
    """
    line = " ".join(text.split())
    line = line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"
    detail = f"{name}: {line or 'no text'}" + (f" ({place})" if place else "")
    where = str(log) if log is not None else "the engine's log (engine/engine.log in the home folder)"
    return WorkbenchError(
        f"loraworkbench failed while {doing}. This is a fault of loraworkbench, not of what you asked for. {detail}",
        "Try it again. If it fails again, run `loraworkbench doctor`, and report the fault with this log: " + where,
        kind=KIND,
    )


def write_traceback(error: BaseException, doing: str, log: Path) -> None:
    """Append an exception's traceback to a log; does nothing if the log cannot be written."""
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} failed while {doing}:\n{''.join(format_exception(error))}\n"
    with suppress(OSError):
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Readable by the owner only, as library messages may contain paths and prompts.
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)


def _place(error: BaseException) -> str:
    """Where the exception was raised, as ``workbench/runs/folder.py, line 12``; empty if it was not raised."""
    frames = extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f"{Path(*Path(frames[-1].filename).parts[-_PATH_PARTS:])}, line {frames[-1].lineno}"
