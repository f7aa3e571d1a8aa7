"""Formats sizes, counts and times. GB, MB and kB are powers of ten, GiB and MiB powers of two; units are always shown.

Memory is shown in GiB, files and disks in GB, counts of parameters in M and B.
"""

from math import isfinite
from typing import Literal

Unit = Literal["kB", "MB", "GB", "MiB", "GiB"]

MIB = 2**20
GIB = 2**30

_BYTES: dict[Unit, float] = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "MiB": MIB, "GiB": GIB}


# -- sizes ------------------------------------------------------------------------------------------------------------


def size_in(unit: Unit, size: float, digits: int = 1) -> str:
    """Format bytes in a given unit: ``3.6 GB``."""
    return f"{size / _BYTES[unit]:,.{digits}f} {unit}"


def part_of(unit: Unit, part: float, whole: float, digits: int = 1) -> str:
    """Format part and whole in a given unit: ``31.2 of 40.0 GiB``."""
    return f"{part / _BYTES[unit]:,.{digits}f} of {size_in(unit, whole, digits)}"


def gib(size: float, digits: int | None = None) -> str:
    """Format memory: ``2.41 GiB`` with about three digits or the given decimals; ``53 MiB`` below 0.1 GiB."""
    if digits is None and abs(size) < 0.1 * GIB:
        return size_in("MiB", size, 0 if abs(size) >= 10 * MIB else 1)
    return f"{gib_number(size, digits)} GiB"


def gib_number(size: float, digits: int | None = None) -> str:
    """Format bytes in GiB, without the unit."""
    value = size / GIB
    if digits is None:
        digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def file_size(size: float, decimals: int = 1) -> str:
    """Format a file size in powers of ten, as file managers do: ``19.6 MB``.

    Args:
        decimals: for values below 10; values from 10 have one, from 1000 none.
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            value = size / scale
            return f"{value:,.{decimals if value < 10 else 1 if value < 1000 else 0}f} {unit}"
    return f"{size:,.0f} B"


def rounded_file_size(size: float) -> str:
    """Format a file size with at most three digits: ``270 MB``, ``2.8 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * scale:
            value = size / scale
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{size:.0f} B"


# -- counts -----------------------------------------------------------------------------------------------------------


def short(value: float) -> str:
    """Format a number with at most three digits: ``135M``, ``6.74B``, ``3.1k``."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


def parameters(count: float) -> str:
    """Format a parameter count: ``1.10 B``, ``135 M``."""
    return f"{count / 1e9:.2f} B" if count >= 0.9995e9 else f"{count / 1e6:.0f} M"


def loss_text(value: float) -> str:
    """Format a loss, the same wherever it is read: ``0.412``, ``2.500``; ``0.0412`` if it is small."""
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"


# -- times ------------------------------------------------------------------------------------------------------------


def clock(seconds: float | None, *, tenths: bool = False) -> str:
    """Format a time as ``04:12``, ``1:02:03`` or ``2 d 03 h``; a dash if it is unknown.

    Args:
        tenths: show tenths of a second below an hour: ``04:12.3``.
    """
    if seconds is None or not isfinite(seconds):
        return "–"
    total = max(0, round(seconds))
    hours, rest = divmod(total, 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02d} h"
    if hours:
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    if tenths:
        # Round first, so that 59.97 seconds are a minute.
        minutes, left = divmod(max(0, round(10 * seconds)), 600)
        return f"{minutes:02d}:{left / 10:04.1f}"
    return f"{rest // 60:02d}:{rest % 60:02d}"


def step_time(seconds: float) -> str:
    """Format a step's time with about three digits: ``2.31 s``, ``12.3 s``, ``43 ms``."""
    if seconds < 0.1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.{2 if seconds < 10 else 1 if seconds < 100 else 0}f} s"


def duration(seconds: float) -> str:
    """Format a duration: ``43.2 s``, ``4 min 12 s``, ``1 h 02 min``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def rough_time(seconds: float) -> str:
    """Format an estimated time: ``28 s``, ``12 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
