"""Replaces what a terminal without UTF-8 cannot show, in everything that is painted."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.color import Color

# One cell each, as every replacement.
_SIGNS = {
    "×": "x", "÷": "/", "±": "~", "≈": "~", "≤": "<", "≥": ">", "−": "-", "–": "-", "—": "-", "…": "~", "·": "-",
    "•": "*", "●": "*", "◆": "*", "○": "o", "◐": "~", "▲": "^", "▼": "v", "▾": "-", "▸": "+", "❯": ">", "☑": "x",
    "☐": "_", "‹": "<", "›": ">", "«": "<", "»": ">", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "←": "<",
    "→": ">", "↑": "^", "↓": "v", "↵": "|", "⏎": "<", "Δ": "d", "σ": "s", "√": "v", "∞": "8", "⌊": "[", "⌋": "]",
    "─": "-", "━": "-", "═": "-", "╌": "-", "│": "|", "┃": "|", "║": "|", "┤": "+", "├": "+",
}  # fmt: skip


class AsciiFilter(LineFilter):
    """Paints the nearest ASCII characters, in as many cells, so that nothing moves."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.control or segment.text.isascii() else Segment(in_ascii(segment.text), segment.style)
            for segment in segments
        ]


def in_ascii(text: str) -> str:
    """Return a text of as many cells in ASCII: ``4 × 4 ≈ …`` → ``4 x 4 ~ ~``."""
    return "".join(character if character.isascii() else _nearest(character) for character in text)


@lru_cache(maxsize=4096)
def _nearest(character: str) -> str:
    width = cell_len(character)
    if (sign := _SIGNS.get(character)) is not None:
        return sign
    match ord(character):
        case code if 0x2500 <= code <= 0x257F:  # box drawing: what is no line is a corner
            return "+"
        case code if 0x2580 <= code <= 0x259F:  # blocks
            return "#"
        case code if 0x2800 <= code <= 0x28FF:  # braille
            return "." if code > 0x2800 else " "
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii() and part.isprintable())
    return plain if len(plain) == width else "?" * width
