"""Numbers as people read them. GB is 10⁹ bytes, GiB is 2³⁰; every figure says which it is."""

from math import isfinite

GIB = 2**30
MIB = 2**20


def gib(size: float, digits: int | None = None) -> str:
    """``2.41 GiB``: about three figures, or as many decimals as asked; ``53 MiB`` under a tenth of a GiB."""
    if digits is None and abs(size) < 0.1 * GIB:
        return f"{size / MIB:.{0 if abs(size) >= 10 * MIB else 1}f} MiB"
    return f"{gib_number(size, digits)} GiB"


def gib_number(size: float, digits: int | None = None) -> str:
    """Bytes in GiB, without the unit."""
    value = size / GIB
    if digits is None:
        digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def file_size(size: float) -> str:
    """Bytes on disk, in powers of ten as file managers show them: ``19.6 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.{1 if size < 1000 * scale else 0}f} {unit}"
    return f"{size:,.0f} B"


def short(value: float) -> str:
    """``135M``, ``6.74B``, ``3.1k``: three figures at most."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


def clock(seconds: float | None) -> str:
    """``04:12``, ``1:02:03``, ``2 d 03 h``; a dash where it is not known."""
    if seconds is None or not isfinite(seconds):
        return "–"
    total = max(0, round(seconds))
    hours, rest = divmod(total, 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02d} h"
    if hours:
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{rest // 60:02d}:{rest % 60:02d}"
