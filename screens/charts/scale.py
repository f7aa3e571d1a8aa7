"""The range of an axis and its round tick values."""

import math
from collections.abc import Sequence
from itertools import chain

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def nice_ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return ticks 1, 2, 2.5 or 5 × 10ⁿ apart, from ``low`` or below to ``high`` or above.

    There are at most ``most`` or three of them; with ``whole`` none has a fraction. Their range changes only when the
    data leave it, so that a chart is seldom rescaled.
    """
    if high <= low:
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, most - 1)
    decade = 10.0 ** math.floor(math.log10(rough))
    for step in chain.from_iterable((f * d for f in (1, 2, 2.5, 5)) for d in (decade, decade * 10, decade * 100)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first + 1 <= max(3, most) and not (whole and step % 1):
            return [index * step for index in range(first, last + 1)]
    raise AssertionError("a step a hundred times the range always fits")


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return ticks 1, 2 or 5 × 10ⁿ from ``low`` or below to ``high`` or above, at most ``most`` or three of them."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(max(high, low * 1.01)) - 1e-9)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**n for n in range(first, last + 1) for factor in factors]
        below = max((i for i, tick in enumerate(ticks) if tick <= low * 1.0001), default=0)
        above = next((i for i, tick in enumerate(ticks) if tick >= high * 0.9999 and i > below), len(ticks) - 1)
        shown = ticks[below : above + 1]
        if len(shown) <= max(3, most):
            return shown
    return [shown[0], *shown[1:-1][:: max(1, -(-len(shown) // max(1, most - 2)))], shown[-1]]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the ticks as text, all with as many decimals as tell them apart evenly: ``4.25``, ``4.50``, ``4.75``.

    Large and small numbers share a unit: ``10k``, ``15k``; ``1.0e-4``, ``1.5e-4``.
    """
    step, top = ticks[1] - ticks[0], max(map(abs, ticks))
    unit, suffix = 1.0, ""
    if top < 1e-3:
        exponent = math.floor(math.log10(top))
        unit, suffix = 10.0**exponent, f"e{exponent}"
    else:
        unit, suffix = next(((size, name) for size, name in _UNITS if top >= 10 * size), (1.0, ""))
    decimals = next(n for n in range(9) if n == 8 or math.isclose(round(step / unit, n), step / unit, rel_tol=1e-6))
    return [f"{tick / unit:.{decimals}f}{suffix}" for tick in ticks]


def steps_shown(last: float, end: float) -> float:
    """Return the end of the step axis during a run: the next of 10, 20, 50, 100, … from ``last``, at most ``end``.

    It changes seldom, and the curve fills a good part of the axis. ``end`` is 0 if it is unknown.
    """
    if end and last >= end:
        return last
    decade = 10.0 ** max(1, math.floor(math.log10(max(last, 1.0))))
    reach = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= last)
    return min(reach, end) if end else reach


def short_number(value: float) -> str:
    """Return a number in about six characters at most: ``0.25``, ``12.5``, ``1.2k``, ``3M``, ``2e-4``."""
    size = abs(value)
    if size < 1e-12:
        return "0"
    if size < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    for factor, suffix in _UNITS:
        if size >= factor * 0.99995:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}"
