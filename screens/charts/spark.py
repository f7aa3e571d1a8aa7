"""A sparkline: a quantity over time as one line of small bars."""

from collections.abc import Sequence

from screens.widgets.glyphs import GLYPHS, Glyphs

_UNICODE = "▁▂▃▄▅▆▇█"
_ASCII = "_.-~=+*#"


def spark(values: Sequence[float], width: int, top: float, glyphs: Glyphs = GLYPHS) -> str:
    """Return the last ``width`` values as bars between 0 and ``top``, the newest on the right."""
    levels = _UNICODE if glyphs.is_unicode else _ASCII
    shares = (min(1.0, max(0.0, value / top)) if top > 0 else 0.0 for value in values[-width:])
    return "".join(levels[min(len(levels) - 1, int(share * len(levels)))] for share in shares).rjust(width)
