"""Pairs of a chosen and a rejected response that a tiny model can learn."""

import json
from pathlib import Path

_WORDS = ["sea", "wind", "rope", "sail", "star", "port", "mast", "deck"]


def write_pairs(file: Path) -> Path:
    """Write 20 pairs: the chosen response names the word that was asked for, the rejected one another."""
    rows = [
        {
            "prompt": f"say {_WORDS[n % 8]} {n}",
            "chosen": f"{_WORDS[n % 8]} it is" + " indeed" * (n % 3),
            "rejected": f"{_WORDS[(n + 3) % 8]} perhaps, or not" + " at all" * (n % 2),
        }
        for n in range(20)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
