"""Characters that bars and marks are drawn with, and their ASCII forms for terminals that are not UTF-8."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Glyphs:
    """The characters of one kind of terminal; each is one cell wide, but for the ASCII arrow.

    Attributes:
        is_unicode: whether the terminal shows more than ASCII.
    """

    full: str
    empty: str
    left: str
    right: str
    dot: str
    ring: str
    half: str
    on: str
    off: str
    checked: str
    unchecked: str
    up: str
    down: str
    opened: str
    closed: str
    pointer: str
    changed: str
    separator: str
    limit: str
    arrow: str
    ellipsis: str
    terms: tuple[str, ...]
    is_unicode: bool


UNICODE = Glyphs(
    full="█", empty="─", left="▕", right="▏", dot="●", ring="○", half="◐", on="●", off="○", checked="☑", unchecked="☐",
    up="▲", down="▼", opened="▾", closed="▸", pointer="❯", changed="•", separator="·", limit="┃",
    arrow="→", ellipsis="…", terms=("█", "▓", "▒"), is_unicode=True,
)  # fmt: skip
ASCII = Glyphs(
    full="#", empty="-", left="[", right="]", dot="*", ring="o", half="~", on="*", off=".", checked="x", unchecked="_",
    up="^", down="v", opened="-", closed="+", pointer=">", changed="*", separator="-", limit="|",
    arrow="->", ellipsis="~", terms=("#", "=", "+"), is_unicode=False,
)  # fmt: skip


def speaks_unicode(environ: Mapping[str, str]) -> bool:
    """Whether the locale that the terminal was started with is a UTF-8 one."""
    chosen = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    return "utf" in chosen.lower()


def unicode_terminal() -> bool:
    """Whether this process's terminal shows more than ASCII."""
    return speaks_unicode(os.environ)


GLYPHS = UNICODE if unicode_terminal() else ASCII
ENTER = "⏎" if unicode_terminal() else "Enter"
"""The Enter key, as the footer shows it."""


def bar(fraction: float, width: int, glyphs: Glyphs = GLYPHS) -> str:
    """Return a bar of ``width`` cells, filled from the left with a precision of an eighth of a cell."""
    filled = min(max(fraction, 0.0), 1.0) * width
    whole = int(filled)
    rest = _EIGHTHS[int((filled - whole) * 8)] if glyphs.is_unicode else ""
    return (glyphs.full * whole + rest.strip()).ljust(width, " " if glyphs.is_unicode else glyphs.empty)[:width]
