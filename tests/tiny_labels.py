"""Texts with labels that a tiny model can learn."""

import json
from pathlib import Path

_WORDS = {"sea": ["wave", "tide", "salt", "gull"], "land": ["hill", "field", "road", "barn"], "sky": ["star", "cloud"]}


def write_labels(file: Path, count: int = 36) -> Path:
    """Write texts about the sea, the land or the sky, and which of them."""
    names = sorted(_WORDS)
    rows = []
    for n in range(count):
        name = "sea" if n % 5 == 0 else names[n % 3]
        words = _WORDS[name]
        rows.append(
            {"text": f"{words[n % len(words)]} {n} and {words[(n + 1) % len(words)]}" + " too" * (n % 3), "topic": name}
        )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
