"""Amounts of memory as people write them: ``24GB``, ``22.5 GiB``."""

import re

from workbench.errors import WorkbenchError

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_MOST = 2**60


def parse_memory(text: str) -> int:
    """``24 GB`` → 24·10⁹, ``22.5 GiB`` → 22.5·2³⁰, ``24`` and ``24G`` → GB.

    Raises:
        WorkbenchError: it is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([kmgt]i?b?|b|)\s*", text, re.ASCII | re.IGNORECASE)
    if match is not None:
        unit = match[2].lower() or "gb"
        size = int(float(match[1].replace(",", ".")) * _UNITS[unit if unit.endswith("b") else f"{unit}b"])
        if 0 < size < _MOST:
            return size
    raise WorkbenchError(
        f"{text} is not an amount of memory.", "Write it as 24 GB (10⁹ bytes) or 22.5 GiB (2³⁰).", kind="bad_request"
    )
