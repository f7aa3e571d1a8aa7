"""Runs a function in a child process, with progress reports and cancellation.

Downloads, conversions and exports run this way: they can be stopped at any moment, a crash in native code ends only the
child, what libraries print does not reach the terminal, and all memory is released at the end.

The parent writes the arguments as one line of JSON to the child's stdin. The child answers with lines of JSON on
stdout: any number of ``{"progress": …}``, then ``{"result": …}`` or ``{"error": …}``. It exits when its stdin is
closed, which happens when the parent dies.
"""

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from workbench.errors import WorkbenchError
from workbench.progress import Cancelled, Progress, Report
from workbench.units import part_of

if TYPE_CHECKING:
    from tqdm.std import tqdm as Bar  # noqa: N812

_POLL_SECONDS = 0.2

Result = TypeVar("Result")


def run_in_child(
    target: str,
    arguments: Mapping[str, object],
    progress: Report,
    cancelled: Cancelled,
    *,
    result: type[Result],
    what: str = "the helper process",
) -> Result:
    """Call ``target`` (``"package.module:function"``) with keyword ``arguments`` in a child process.

    Arguments and result must be JSON data. The function reports its progress with :func:`report`.

    Args:
        result: the type of the function's result, which is validated.
        what: names the work in an error message.

    Raises:
        WorkbenchError: the error that the function raised; kind ``cancelled`` after ``cancelled`` returned True; kind
            ``child_died`` if the process ended without a result, with the end of its output.
    """
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile() as output:
        # -P: a file in the current folder that is named like a library must not be imported instead of it.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            assert process.stdin
            process.stdin.write(json.dumps(arguments).encode() + b"\n")
            process.stdin.flush()
            for message in _messages(process, cancelled):
                if "progress" in message:
                    progress(Progress.model_validate(message["progress"]))
                elif "error" in message:
                    raise WorkbenchError.from_json(message["error"])
                else:
                    return TypeAdapter(result).validate_python(message["result"])
            raise _died(what, process.wait(), output)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def cancelled_error() -> WorkbenchError:
    """The error to raise when the user cancels a download or conversion."""
    return WorkbenchError("Cancelled.", kind="cancelled")


def report(phase: str, fraction: float | None = None, detail: str = "") -> None:
    """In the child: report progress to the parent."""
    _send(progress={"phase": phase, "fraction": fraction, "detail": detail})


@contextlib.contextmanager
def bars_as_progress(phase: str, total_bytes: int | None = None) -> Iterator[None]:
    """In the child: report the tqdm bars that libraries show as progress of ``phase``.

    With ``total_bytes``, only bars that count bytes are used, and the one that is furthest stands for the whole work.
    """
    from tqdm.std import tqdm

    furthest = 0

    def display(bar: "Bar", *_: object, **__: object) -> None:
        nonlocal furthest
        if total_bytes is not None:
            if bar.unit == "B":
                furthest = max(furthest, bar.n)
                share = min(1.0, furthest / total_bytes) if total_bytes else None
                report(phase, share, _done_of(furthest, total_bytes))
        elif bar.total:
            report(phase, min(1.0, bar.n / bar.total), f"{bar.n} of {bar.total}")

    original, tqdm.display = tqdm.display, display
    try:
        yield
    finally:
        tqdm.display = original


def _done_of(done: int, total: int) -> str:
    return part_of("GB", done, total) if total >= 1e10 else part_of("MB", done, total, 0)


def _messages(process: subprocess.Popen[bytes], cancelled: Cancelled) -> Iterator[dict[str, Any]]:
    """Yield the child's messages as they arrive; raise if ``cancelled`` returns True in the meantime."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    assert process.stdout
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    while True:
        if cancelled():
            raise cancelled_error()
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return
        yield json.loads(line)


def _read_lines(stream: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _died(what: str, code: int, output: IO[bytes]) -> WorkbenchError:
    from workbench.failures.diagnose import diagnose_exit

    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4000))
    return diagnose_exit(code, output.read().decode("utf-8", "replace"), what=what)


_to_parent: IO[str] = sys.stdout


def _send(**message: object) -> None:
    _to_parent.write(json.dumps(message) + "\n")
    _to_parent.flush()


def _exit_with_parent() -> None:
    # os.read instead of sys.stdin: a thread that waits in sys.stdin breaks the interpreter's shutdown.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _main() -> None:
    # This module runs as `__main__`, but the target imports it under its name: both must write to the same file.
    child = importlib.import_module("workbench.models.child")
    vars(child)["_to_parent"] = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    arguments = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    module, _, function = sys.argv[1].partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(**arguments)
    except BaseException as error:
        import traceback

        from workbench.failures.diagnose import diagnose

        traceback.print_exc()
        child._send(error=diagnose(error, f"working in a helper process ({function})").as_json())
    else:
        child._send(result=result)


if __name__ == "__main__":
    _main()
