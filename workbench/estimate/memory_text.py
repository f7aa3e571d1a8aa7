"""Amounts of memory as people write them: ``24GB``, ``22.5 GiB``.

A GB of memory is 2³⁰ bytes, as on the box of a graphics card: a card with "24 GB" has 24 GiB.
"""

import re

from workbench.errors import WorkbenchError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_MOST = 2**60


def parse_memory(text: str) -> int:
    """``24 GB``, ``24 GiB``, ``24G`` and ``24`` → 24·2³⁰ bytes.

    Raises:
        WorkbenchError: it is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([kmgt]i?b?|b|)\s*", text, re.ASCII | re.IGNORECASE)
    if match is not None:
        unit = match[2].lower() or "g"
        size = int(float(match[1].replace(",", ".")) * _UNITS[unit.rstrip("ib")])
        if 0 < size < _MOST:
            return size
    raise WorkbenchError(
        f"{text} is not an amount of memory.",
        "Write it as 24 GB or 22.5 GiB, which are both in 2³⁰ bytes, as on a graphics card's box.",
        kind="bad_request",
    )
