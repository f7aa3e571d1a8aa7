"""A stacked bar of memory terms against a total, and its legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from textual.content import Content

from screens.widgets.glyphs import GLYPHS
from workbench.units import GIB, gib_number


@dataclass(frozen=True)
class Part:
    """One term: its label, and the variable of the theme with its color."""

    label: str
    color: str


# In the order of workbench.estimate.peak.TERMS, followed by the memory of the driver.
PARTS: Mapping[str, Part] = {
    "weights": Part("weights", "term-weights"),
    "quantisation_constants": Part("quantization constants", "term-constants"),
    "adapters": Part("adapter", "term-adapters"),
    "gradients": Part("gradients", "term-gradients"),
    "optimizer": Part("optimizer", "term-optimizer"),
    "saved_activations": Part("activations", "term-activations"),
    "recomputation": Part("recompute", "term-recomputation"),
    "loss": Part("loss", "term-loss"),
    "workspace": Part("workspace", "term-workspace"),
    "reserved": Part("allocator", "term-reserved"),
    "cuda_context": Part("CUDA", "term-context"),
}


def stacked_bar(sizes: Mapping[str, int], whole: int, width: int) -> Content:
    """Return ``▕████▓▓▒▒▒▒────▏``: each part has its own color and, for those who see none, its own filling.

    If the parts exceed the total, a mark shows where the total ends.

    Args:
        sizes: bytes by the names of :data:`PARTS`.
        whole: the total in bytes, which is the full width.
        width: in cells, including both ends.
    """
    inner = max(width - 2, 1)
    total = sum(sizes.values())
    scale = max(whole, total, 1)
    cells: list[tuple[str, str]] = []
    running = 0
    for index, (name, part) in enumerate(PARTS.items()):
        running += sizes.get(name, 0)
        grown = round(running / scale * inner) - len(cells)
        cells += [(GLYPHS.terms[index % len(GLYPHS.terms)], f"${part.color}")] * grown
    cells += [(GLYPHS.empty, "$border")] * (inner - len(cells))
    if total > whole:
        cells[min(round(whole / scale * inner), inner - 1)] = (GLYPHS.limit, "bold $error")
    runs = [("".join(glyph for glyph, _ in run), style) for style, run in groupby(cells, key=itemgetter(1))]
    return Content.assemble((GLYPHS.left, "$muted"), *runs, (GLYPHS.right, "$muted"))


def legend(sizes: Mapping[str, int], width: int) -> list[Content]:
    """Return the parts with their GiB, as many per line as fit; parts under 1 % of the sum are added up last."""
    total = sum(sizes.values())
    entries: list[Content] = []
    small = 0
    for index, (name, part) in enumerate(PARTS.items()):
        size = sizes.get(name, 0)
        if size < 0.01 * total:
            small += size
        else:
            entries.append(_entry(GLYPHS.terms[index % len(GLYPHS.terms)], part.label, size, part.color))
    if small:
        entries.append(_entry(GLYPHS.separator, "rest", small, "muted"))
    return _in_lines(entries, width)


def _entry(mark: str, label: str, size: int, color: str) -> Content:
    value = gib_number(size, 2 if size >= 0.005 * GIB else 3)
    return Content.assemble((mark, f"${color}"), (f" {label} ", "$muted"), value)


def _in_lines(entries: Sequence[Content], width: int) -> list[Content]:
    lines: list[list[Content]] = [[]]
    used = 0
    for entry in entries:
        if lines[-1] and used + 3 + entry.cell_length > width:
            lines.append([])
            used = 0
        used += entry.cell_length + (3 if lines[-1] else 0)
        lines[-1].append(entry)
    return [Content("   ").join(line) for line in lines]
