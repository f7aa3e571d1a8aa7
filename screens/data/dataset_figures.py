"""Statistics of a dataset as text, and a histogram of its record lengths with the truncation limit."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from textual.content import Content

from screens.widgets.glyphs import GLYPHS, Glyphs
from screens.widgets.key_texts import key
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from workbench.data.facts import DataFacts
    from workbench.recipe.schema import Recipe

_LABEL = 12
_HEIGHT = 5
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ASCII_EIGHTHS = "  ...:::#"
_BEYOND = {True: "▒", False: "%"}


def data_figures(facts: DataFacts, recipe: Recipe) -> Content:
    """Return the counts, one per line; those that need attention have the color of warnings."""
    training, packing, lengths, dot = recipe.training, recipe.data.packing, facts.lengths, GLYPHS.separator
    share = facts.trained / max(facts.total, 1)
    lost = f"{facts.skipped:,} invalid, {facts.lost_reply:,} without response"
    spread = f"median {lengths.p50:,} {dot} p99 {lengths.p99:,} {dot} max {lengths.max:,}"
    repeated = f"{facts.duplicates:,} {dot} train/eval overlap {facts.overlap:,} {dot} near-empty {facts.near_empty:,}"
    waste = f"{facts.padding_waste:.0%} if padded {dot} {facts.packed_waste:.0%} packed into {facts.packed_sequences:,}"
    steps = f"{facts.steps_per_epoch(training, packing):,} per epoch, {facts.steps(training, packing):,} total"
    lines = [
        ("records", f"{facts.records:,} {dot} {facts.eval_records:,} held out", ""),
        ("skipped", lost, _warn(facts.skipped, facts.lost_reply)),
        ("tokens", f"{facts.total:,} {dot} {facts.masked:,} masked", ""),
        ("trained", f"{facts.trained:,} ({share:.0%})", ""),
        ("truncated", f"{facts.truncated:,} records, {facts.cut:,} tokens lost", _warn(facts.truncated)),
        ("lengths", spread, ""),
        ("duplicates", repeated, _warn(facts.overlap)),
        ("padding", waste, ""),
        ("steps", steps, ""),
    ]
    return Content("\n").join(
        Content.assemble((label.ljust(_LABEL), "$foreground 60%"), (value, tone)) for label, value, tone in lines
    )


def histogram(facts: DataFacts, glyphs: Glyphs = GLYPHS) -> Content:
    """Return a histogram of record lengths in tokens; bars beyond ``max_length`` have another filling and color."""
    bins = facts.lengths.histogram
    if not bins:
        return Content("")
    most = max(count for _, _, count in bins)
    columns = [_column(count / most, count > 0, start >= facts.max_length, glyphs) for start, _, count in bins]
    if facts.max_length <= facts.lengths.max:
        at = sum(start < facts.max_length for start, _, _ in bins)
        columns.insert(at, [(glyphs.limit, "bold $warning")] * _HEIGHT)
        limit = f"{glyphs.limit} truncated at {facts.max_length:,}"
    else:
        limit = f"not truncated (limit {facts.max_length:,})"
    rows = [_row([column[y] for column in columns]) for y in range(_HEIGHT)]
    axis = f"0{f'{facts.lengths.max:,}'.rjust(max(len(columns) - 1, 1))} tokens  {limit}"
    return Content("\n").join([*rows, Content.styled(axis, "$foreground 60%")])


def notices(facts: DataFacts) -> Content:
    """Return the notices, the most important first."""
    found = [(question, "$warning") for question in facts.questions]
    found += [(f"Press {key('data.map')} to map columns.", "bold")] if facts.unused_question else []
    found += [(notice, "$foreground 80%") for notice in facts.notices]
    found += [(f"Batches are {facts.padding}.", "$foreground 60%")] if facts.padding else []
    return Content("\n").join(Content.styled(plain(text), style) for text, style in found)


def _column(share: float, any_there: bool, beyond: bool, glyphs: Glyphs) -> list[tuple[str, str]]:
    """Return a bar from top to bottom, one cell wide."""
    level = max(round(share * _HEIGHT * 8), int(any_there))
    style = "$warning" if beyond else "$accent"
    marks = _EIGHTHS if glyphs.is_unicode else _ASCII_EIGHTHS
    eighths = [min(max(level - 8 * below, 0), 8) for below in reversed(range(_HEIGHT))]
    return [(_BEYOND[glyphs.is_unicode] if beyond and fill else marks[fill], style) for fill in eighths]


def _row(cells: list[tuple[str, str]]) -> Content:
    runs = [("".join(glyph for glyph, _ in run), style) for style, run in groupby(cells, key=itemgetter(1))]
    return Content.assemble(*runs)


def _warn(*counts: int) -> str:
    return "$warning" if any(counts) else ""
