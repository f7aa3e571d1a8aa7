"""Checks Python, the home, disks, memory and the terminal."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workbench.machine.host import HostSampler
from workbench.models.local import hub_cache
from workbench.planning.doctor.check import Check
from workbench.storage.paths import Home
from workbench.units import part_of, size_in

_OLDEST_PYTHON = (3, 11)
_GB = 1e9


def python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Check(
            "Python", "problem", found, "The workbench needs Python 3.11 or newer.", "Install it in a newer one."
        )
    return Check("Python", "ok", found)


def home(home: Home) -> Check:
    """Check that the home is writable by writing to it; a missing home is not created."""
    folder = next(parent for parent in (home.root, *home.root.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            "Home",
            "problem",
            f"{home.root} cannot be written: {error.strerror}",
            "Runs, converted models and settings cannot be saved; the engine cannot start.",
            "Set another folder with --home or LORAWORKBENCH_HOME.",
        )
    return Check("Home", "ok", f"{home.root}" + ("" if home.root.exists() else " (created on first use)"))


def disks(home: Home) -> Iterator[Check]:
    yield disk("Disk", home.root, "Runs and converted models need disk space.", "--home")
    cache = hub_cache()
    if _device(cache) != _device(home.root):
        yield disk("Disk of the hub's cache", cache, "Downloaded models need disk space.", "HF_HOME")


def disk(name: str, folder: Path, use: str, way: str) -> Check:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{size_in('GB', free)} free at {folder}"
    cure = f"Delete unused files (`hf cache rm`, old runs), or choose another disk with {way}."
    if free < 1 * _GB:
        return Check(name, "problem", found, f"{use} Even the default model takes 0.5 GB while it is converted.", cure)
    if free < 20 * _GB:
        return Check(name, "warning", found, f"{use} A model of 7 billion parameters takes 14 GB.", cure)
    return Check(name, "ok", found)


def memory() -> Check:
    host = HostSampler().sample()
    found = f"{part_of('GB', host.available_bytes, host.total_bytes)} available"
    if host.available_bytes < 3 * _GB:
        return Check(
            "Memory",
            "warning",
            found,
            "Loading a model may run out of memory, and the system then kills the engine.",
            "Close other programs, or raise the memory limit of the container.",
        )
    return Check("Memory", "ok", found)


def terminal() -> Check:
    name = os.environ.get("TERM", "")
    if not sys.stdout.isatty():
        return Check("Terminal", "ok", "output is not a terminal")
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    size = shutil.get_terminal_size()
    depth = "no colors" if "NO_COLOR" in os.environ or name in ("", "dumb") else _colors(name)
    found = f"{name or 'TERM is not set'}, {size.columns}×{size.lines}, {sys.stdout.encoding}, {depth}"
    if encoding != "utf8":
        return Check(
            "Terminal",
            "warning",
            found,
            "Bars and charts are drawn in ASCII.",
            "Set a UTF-8 locale, such as `export LANG=C.UTF-8`.",
        )
    if name in ("", "dumb"):
        return Check(
            "Terminal",
            "problem",
            found,
            "The app cannot be shown; the commands work.",
            "Set TERM to your terminal type, such as xterm-256color.",
        )
    if size.columns < 80 or size.lines < 24:
        return Check("Terminal", "warning", found, "The app needs at least 80×24.", "Make the window larger.")
    return Check("Terminal", "ok", found)


def _colors(name: str) -> str:
    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return "16 million colors"
    return "256 colors" if "256" in name else "16 colors"


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


def _device(folder: Path) -> int:
    return _existing(folder).stat().st_dev
