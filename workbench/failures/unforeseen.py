"""The last resort: an exception that nobody foresaw, told as a fault of loraworkbench, with what to do about it."""

import os
import time
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb, format_exception

from workbench.errors import WorkbenchError

KIND = "unforeseen"

_TEXT_LIMIT = 300
# The part of a file's path that says which module it is of.
_PATH_PARTS = 3


def unforeseen(error: BaseException, doing: str, log: Path | None) -> WorkbenchError:
    """Tell of an exception that no rule explains, and append its traceback to the log.

    Args:
        doing: what was being done, as in "loraworkbench failed while …": ``"starting the run"``.
        log: the file that takes the traceback; None where the caller knows none, and raises to one that prints it.
    """
    if log is not None:
        write_traceback(error, doing, log)
    return unforeseen_text(type(error).__name__, str(error), doing, log, _place(error))


def unforeseen_text(name: str, text: str, doing: str, log: Path | None, place: str = "") -> WorkbenchError:
    """As :func:`unforeseen`, for an exception of which only the class's name and the text are left.

    Args:
        place: file and line that raised it.
    """
    said = " ".join(text.split())
    said = said if len(said) <= _TEXT_LIMIT else said[: _TEXT_LIMIT - 1] + "…"
    detail = f"{name}: {said or 'no text'}" + (f" ({place})" if place else "")
    where = str(log) if log is not None else "the engine's log (engine/engine.log in the home folder)"
    return WorkbenchError(
        f"loraworkbench failed while {doing}. This is a fault of loraworkbench, not of what you asked for. {detail}",
        "Try it again. If it fails again, run `loraworkbench doctor`, and report the fault with this log: " + where,
        kind=KIND,
    )


def write_traceback(error: BaseException, doing: str, log: Path) -> None:
    """Append what was raised to a log; a log that cannot be written is passed over, as nothing else can be done."""
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} failed while {doing}:\n{''.join(format_exception(error))}\n"
    with suppress(OSError):
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What libraries say may quote paths and prompts: for the owner's eyes only.
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)


def _place(error: BaseException) -> str:
    """``workbench/runs/folder.py, line 12``: where the exception was raised; empty where nothing raised it."""
    frames = extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f"{Path(*Path(frames[-1].filename).parts[-_PATH_PARTS:])}, line {frames[-1].lineno}"
