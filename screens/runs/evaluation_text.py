"""An evaluation as the screen shows it: its metrics, and the replies to a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.evaluation.result import AnsweredPrompt, Evaluation

# With more models than this, the table has no room for intervals.
_MOST_WITH_INTERVALS = 2


def figures_text(evaluation: Evaluation, *, is_wide: bool) -> Content:
    """Return the metrics as tables, then the comparisons with the base as sentences."""
    from workbench.evaluation.formatting import better_text, caution, figure_tables

    part = ", first part only" if evaluation.more else ""
    records = "held-out records of " if evaluation.own else "records of "
    head = f"{evaluation.records:,} {records}{evaluation.source}{part}, {evaluation.tokens:,} tokens"
    has_intervals = is_wide and len(evaluation.judged) <= _MOST_WITH_INTERVALS
    head += f"; {evaluation.level:.0%} intervals in parentheses" if has_intervals else ""
    lines = [plain_content(head, "$text-muted")]
    for table in figure_tables(evaluation, bounds=has_intervals):
        lines += table_lines(table)
    lines += [plain_content(better_text(evaluation, model), "bold") for model in evaluation.judged if model.minus]
    if warning := caution(evaluation):
        lines.append(plain_content(warning, "$warning"))
    return Content("\n").join(lines)


def table_lines(table: Sequence[Sequence[str]]) -> list[Content]:
    """Return a table as lines with aligned columns; the first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return [plain_content(row.rstrip(), "" if number else "$text-muted") for number, row in enumerate(rows)]


def reply_columns(answered: AnsweredPrompt) -> list[tuple[str, str]]:
    """Return a heading and a text for each column: the models' replies, then the reference if there is one."""
    columns = [(name, reply.strip() or "(nothing)") for name, reply in answered.replies.items()]
    return [*columns, *([("reference", answered.reference)] if answered.reference is not None else [])]
