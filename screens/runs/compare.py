"""Runs side by side: their curves over each other, what differs in their recipes, and what came of each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.charts.loss_chart import Curve, LossChart
from screens.runs.comparison_table import table_of
from screens.shell import run_words
from screens.shell.live_run import Story
from screens.widgets.glyphs import GLYPHS
from screens.widgets.line_painted import Words, entitle
from screens.widgets.plain import plain, plain_content
from workbench.runs.library.comparison import Figures, adapter_bytes, difference_rows, figure_rows, letters, recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from textual import events
    from textual.app import ComposeResult

    from screens.charts.series import Series
    from workbench.runs.folder import RunFolder

MOST = 6
"""Runs at a time: the chart has as many colours."""

_SECONDS = 1.0
_AXES = ("step", "tokens", "time")
_SHOWN = ("train and held out", "train", "held out")


class CompareScreen(ModalScreen[None]):
    """Two to six runs, live ones too. Each has a letter, by which its curves are known without their colour."""

    DEFAULT_CSS = """
    CompareScreen { align: center middle; background: $background; }
    CompareScreen > VerticalScroll {
        width: 100%; height: 100%; background: $background; border: round $border; padding: 0 1;
        scrollbar-size-vertical: 1;
        border-title-style: bold; border-title-color: $foreground; border-subtitle-color: $text-muted;
    }
    CompareScreen LossChart { height: 55%; min-height: 10; }
    CompareScreen #reading { height: auto; display: none; }
    CompareScreen.-reading #reading { display: block; }
    CompareScreen Static { height: auto; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "axis", "Axis", id="compare.axis", tooltip="Over steps, tokens or seconds of training"),
        Binding("l", "losses", "Losses", id="compare.losses", tooltip="Train and held out, or one of them"),
        Binding("escape,o,q", "leave", "Back", id="compare.leave"),
    ]

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        super().__init__()
        self._stories = [Story(run) for run in runs]
        self._recipes: list[dict[str, Any] | None] = []
        self._names: list[str] = []
        self._read: set[str] = set()
        self._axis = self._losses = 0
        self._drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield LossChart()
            yield Words(id="reading")
            yield Static(id="figures")
            yield Static(id="differences")

    def on_mount(self) -> None:
        box = self.query_one(VerticalScroll)
        entitle(box, f"{len(self._stories)} runs over each other")
        sign = f" {GLYPHS.separator} "
        box.border_subtitle = sign.join(("x another axis", "l train or held out", "↑ ↓ more", "Esc back"))
        box.focus()
        self.query_one(LossChart).show((), nothing="Reading their journals …")
        self.run_worker(self._follow())

    # -- what the user does ---------------------------------------------------------------------------------------

    def action_axis(self) -> None:
        """Another axis."""
        self._axis = (self._axis + 1) % len(_AXES)
        self._draw()

    def action_losses(self) -> None:
        """Both losses, or one of them."""
        self._losses = (self._losses + 1) % len(_SHOWN)
        self._draw()

    def action_leave(self) -> None:
        self.dismiss(None)

    def on_resize(self, event: events.Resize) -> None:
        self._show_tables()

    # -- the journals ---------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Read all journals, long ones at a glance first, then what is added to them as long as the screen is there."""
        runs = [story.run for story in self._stories]
        self._recipes, self._names = await asyncio.to_thread(_what_they_are, runs)
        await asyncio.gather(*map(self._read_story, self._stories))
        while True:
            await asyncio.sleep(_SECONDS)
            for story in self._stories:
                if not story.is_over:
                    before = story.seq
                    await story.catch_up()
                    if story.seq != before or story.is_over:
                        self._show()

    async def _read_story(self, story: Story) -> None:
        await story.catch_up(self._show)
        self._read.add(story.run.id)
        self._show()

    def _show(self) -> None:
        if not self.is_attached:
            return
        missing = [story for story in self._stories if story.run.id not in self._read]
        self.set_class(bool(missing), "-reading")
        told = [f"{plain(story.run.id)} {run_words.reading(story)}" for story in missing if story.is_rough]
        self.query_one("#reading", Words).show(plain_content(", ".join(told) or "Reading …", "$text-muted"))
        self._draw()
        self._show_tables()

    # -- the chart ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        over, unit, title = self._scale()
        curves = list(self._curves(over, unit))
        chart = self.query_one(LossChart)
        is_over = all(story.is_over for story in self._stories)
        ends = [curve.series.last[0] for curve in curves if curve.series.last]
        chart.show(
            curves,
            end=max(ends, default=0.0) if is_over else 0.0,
            nothing="None of them has such a loss in its journal." if not self.has_class("-reading") else "Reading …",
        )
        entitle(self.query_one(VerticalScroll), f"{_SHOWN[self._losses]} loss over {title}")

    def _scale(self) -> tuple[str, float, str]:
        """The axis, how much of it is one, and its name."""
        match _AXES[self._axis]:
            case "tokens":
                return "tokens", 1, "tokens"
            case "time":
                longest = max((story.clock.last[1] for story in self._stories if story.clock.last), default=0.0)
                unit, name = (3600, "hours") if longest > 7200 else (60, "minutes") if longest > 120 else (1, "seconds")
                return "time", unit, f"{name} of training"
        return "step", 1, "steps"

    def _curves(self, axis: str, unit: float) -> Iterator[Curve]:
        """Held-out losses last, for their marks are few: lines must not hide them."""
        shown = _SHOWN[self._losses]
        known = list(enumerate(zip(self._stories, letters(len(self._stories)), strict=True)))
        if shown != "held out":
            for colour, (story, letter) in known:
                yield Curve(self._called(colour), _along(story.train, story, axis, unit), letter=letter, colour=colour)
        if shown != "train":
            for colour, (story, letter) in known:
                label = self._called(colour) if shown == "held out" else ""
                series = _along(story.eval, story, axis, unit)
                yield Curve(label, series, marked=True, letter=letter.lower(), colour=colour)

    def _called(self, number: int) -> str:
        return self._names[number] if self._names else self._stories[number].run.id

    # -- the tables -----------------------------------------------------------------------------------------------

    def _show_tables(self) -> None:
        if not self._names:
            return
        figures = figure_rows([_figures(story) for story in self._stories], "→" if GLYPHS.eighths else "->")
        # One column is the scrollbar's, whether it is there yet or not.
        place, accent = self.query_one(VerticalScroll).content_size.width - 1, self.app.theme_variables["accent"]
        drawn = (figures, place)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        self.query_one("#figures", Static).update(table_of("what came of them", self._names, figures, place, accent))
        differences = difference_rows(self._recipes)
        self.query_one("#differences", Static).update(
            table_of("where they differ", self._names, differences, place, accent)
            if differences
            else Text("Their recipes are the same.", style="dim")
        )


def _along(series: Series, story: Story, axis: str, unit: float) -> Series:
    match axis:
        case "tokens":
            return series.along(story.tokens, unit)
        case "time":
            return series.along(story.clock, unit)
    return series


def _figures(story: Story) -> Figures:
    held_out = story.eval.last
    return Figures(
        story.summary,
        best=(story.best.loss, story.best.step) if story.best else None,
        held_out=held_out[1] if held_out and held_out[0] else None,
        seconds=story.clock.last[1] if story.clock.last else 0.0,
        trainable=story.facts.get("trainable_parameters"),
        adapter_bytes=adapter_bytes(story.run),
    )


def _what_they_are(runs: Sequence[RunFolder]) -> tuple[list[dict[str, Any] | None], list[str]]:
    """Their recipes and names; read off the event loop."""
    return [recipe_of(run) for run in runs], [run.name for run in runs]
