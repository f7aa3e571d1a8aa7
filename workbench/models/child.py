"""Work that a process of its own does: downloads and conversions.

Why: it can be ended at any moment, a crash in native code ends only it, what libraries print does not reach the
terminal, and the memory it took is given back. The child gets its arguments as one line of JSON on stdin, and answers
in lines of JSON on stdout: ``{"progress": …}``, and at the end ``{"result": …}`` or ``{"error": …}``. It ends itself
when its parent is gone, which it sees by the end of stdin.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.units import part_of

_POLL_SECONDS = 0.2


def run_in_child(
    target: str,
    arguments: dict[str, Any],
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    *,
    what: str = "the helper process",
) -> Any:
    """Call ``target`` (``"package.module:function"``) with keyword ``arguments`` in a child process.

    Arguments and result are plain data. The function reports with :func:`report`; ``what`` names the work in an error.

    Raises:
        WorkbenchError: the one that the function raised; kind ``cancelled`` when ``cancelled`` came true; kind
            ``child_died`` when the process ended without an answer, with the last that it printed.
    """
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile() as printed:
        # -P: a file named like a library in the current folder must not be imported in its place.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __spec__.name, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            assert process.stdin
            process.stdin.write(json.dumps(arguments).encode() + b"\n")
            process.stdin.flush()
            for answer in _answers(process, cancelled):
                if "progress" in answer:
                    progress(Progress.model_validate(answer["progress"]))
                elif "error" in answer:
                    raise WorkbenchError.from_json(answer["error"])
                else:
                    return answer["result"]
            raise _died(what, process.wait(), printed)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


def cancelled_error() -> WorkbenchError:
    """What is raised when the user ends a download or conversion."""
    return WorkbenchError("Cancelled.", kind="cancelled")


def report(phase: str, fraction: float | None = None, detail: str = "") -> None:
    """In the child: say how far the work has come."""
    _say(progress={"phase": phase, "fraction": fraction, "detail": detail})


@contextlib.contextmanager
def bars_as_progress(phase: str, total_bytes: int | None = None) -> Iterator[None]:
    """In the child: what libraries show as tqdm bars becomes progress of ``phase``.

    With ``total_bytes``, only bars that count bytes are looked at, and the furthest of them stands for the whole.
    """
    from tqdm.std import tqdm

    furthest = 0

    def display(bar: Any, *_: Any, **__: Any) -> None:
        nonlocal furthest
        if total_bytes is not None:
            if bar.unit == "B":
                furthest = max(furthest, bar.n)
                share = min(1.0, furthest / total_bytes) if total_bytes else None
                report(phase, share, _of(furthest, total_bytes))
        elif bar.total:
            report(phase, min(1.0, bar.n / bar.total), f"{bar.n} of {bar.total}")

    before, tqdm.display = tqdm.display, display
    try:
        yield
    finally:
        tqdm.display = before


def _of(done: int, total: int) -> str:
    return part_of("GB", done, total) if total >= 1e10 else part_of("MB", done, total, 0)


def _answers(process: subprocess.Popen[bytes], cancelled: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """The child's lines as they come; looks at ``cancelled`` meanwhile."""
    lines: queue.Queue[bytes | None] = queue.Queue()
    assert process.stdout
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
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


def _pump(stream: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.put(line)
    lines.put(None)


def _died(what: str, code: int, printed: IO[bytes]) -> WorkbenchError:
    from workbench.failures.diagnose import diagnose_exit

    size = printed.seek(0, os.SEEK_END)
    printed.seek(max(0, size - 4000))
    return diagnose_exit(code, printed.read().decode("utf-8", "replace"), what=what)


_answer_file: IO[str] = sys.stdout


def _say(**answer: Any) -> None:
    _answer_file.write(json.dumps(answer) + "\n")
    _answer_file.flush()


def _end_with_parent() -> None:
    # Not through sys.stdin: a thread that waits in there breaks the interpreter's own end.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _main() -> None:
    # The module that the target imports is `workbench.models.child`; this one is `__main__`. Both must be one.
    child: Any = importlib.import_module("workbench.models.child")
    child._answer_file = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    arguments = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, _, function = sys.argv[1].partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(**arguments)
    except BaseException as error:
        import traceback

        from workbench.failures.diagnose import diagnose

        traceback.print_exc()
        child._say(error=diagnose(error, f"working in a helper process ({function})").as_json())
    else:
        child._say(result=result)


if __name__ == "__main__":
    _main()
