"""The checklist while a run starts: ``✓ loading 12 s``, ``▸ tokenizing 61 %``, then what is still to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.widgets.glyphs import GLYPHS, Glyphs
from screens.widgets.plain import plain
from workbench.units import rough_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.runs.startup import Stage


def checklist(stages: Iterable[Stage], *, is_over: bool, glyphs: Glyphs = GLYPHS) -> Content:
    """Return one line per stage.

    Args:
        is_over: the run ended before its first step: the stage that was running is marked as failed.
    """
    return Content("\n").join(_line(stage, is_over, glyphs) for stage in stages)


def _line(stage: Stage, is_over: bool, glyphs: Glyphs) -> Content:
    name = plain(stage.name)
    if stage.state == "done":
        mark = "✓" if glyphs.is_unicode else "x"
        took = rough_time(stage.seconds) if stage.seconds >= 1 else ""
        return Content.assemble((f"{mark} ", "$success"), f"{name}  ", (took, "$text-muted"))
    if stage.state == "waiting":
        return Content.styled(f"  {name}", "$text-muted")
    if is_over:
        return Content.styled(f"{'✗' if glyphs.is_unicode else '!'} {name}", "bold $error")
    share = f"{stage.fraction:.0%}".replace("%", " %") if stage.fraction is not None else ""
    return Content.assemble(
        (f"{glyphs.closed if glyphs.is_unicode else '>'} ", "bold $accent"),
        (f"{name}  ", "bold"),
        share,
        (f"  {plain(stage.detail)}" if stage.detail else "", "$text-muted"),
    )
