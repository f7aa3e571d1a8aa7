"""The result of a check of this machine."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """The result of a check. ``consequence`` and ``cure`` are empty if everything is fine."""

    name: str
    ok: Literal["ok", "warning", "problem"]
    found: str
    consequence: str = ""
    cure: str = ""
