"""The comparison of runs: their curves on one chart, their results, and the differences between their recipes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.charts.keys import chart_keys
from screens.charts.run_chart import LOSS, neighbor, titles
from screens.runs.comparison_charts import ComparisonCharts, scale_of, title_of
from screens.runs.comparison_table import table_of
from screens.shell import run_words
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain, plain_content
from workbench.runs.curves.compared import metrics_of
from workbench.runs.library.comparison import best_metrics, difference_rows, metric_rows, recipe_of
from workbench.runs.live_run import LiveRun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from textual import events
    from textual.app import ComposeResult

    from screens.runs.comparison_charts import Axis, Losses
    from workbench.runs.folder import RunFolder
    from workbench.runs.library.comparison import RunMetrics

MOST = 6
"""The most runs in one comparison: the chart has as many colors."""

_SECONDS = 1.0
_AXES: tuple[Axis, ...] = ("step", "tokens", "time")
_SHOWN: tuple[Losses, ...] = ("train and held-out", "train", "held-out")


class CompareScreen(ModalScreen[None]):
    """Compares two to six runs, live ones too. A letter marks the curves of each, so that color is not needed."""

    NAME: ClassVar[str] = "Compare"
    GUIDE: ClassVar[str] = (
        "The curves of two to six runs on common axes, their results, and the differences between "
        "their recipes. A letter marks each run, in capitals on its training loss and in small "
        "letters on its held-out loss. ↑ and ↓ scroll; the chart has the keys of the one on Train."
    )

    DEFAULT_CSS = """
    CompareScreen { align: center middle; background: $background; }
    CompareScreen > VerticalScroll {
        width: 100%; height: 100%; background: $background; border: round $border; padding: 0 1;
        scrollbar-size-vertical: 1;
        border-title-style: bold; border-title-color: $foreground; border-subtitle-color: $text-muted;
    }
    CompareScreen ComparisonCharts { height: 55%; min-height: 10; }
    CompareScreen #reading { height: auto; display: none; }
    CompareScreen.-reading #reading { display: block; }
    CompareScreen Static { height: auto; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "axis", "Axis", id="compare.axis", tooltip="Switch the axis: steps, tokens or training time"),
        Binding("l", "losses", "Losses", id="compare.losses", tooltip="Switch losses: train, held out or both"),
        *chart_keys(arrows_first=True),
        Binding("escape,o,q", "leave", "Back", id="compare.leave"),
    ]

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        super().__init__()
        self._runs = [LiveRun(run) for run in runs]
        self._recipes: list[dict[str, Any] | None] = []
        self._names: list[str] = []
        self._read: set[str] = set()
        self._axis = self._losses = 0
        self._quantity = LOSS
        self._drawn: tuple[object, ...] = ()
        self._charts = ComparisonCharts()
        self._progress = Paragraph(id="reading")
        self._results = Static(id="figures")
        self._differences = Static(id="differences")
        self._box = VerticalScroll(self._charts, self._progress, self._results, self._differences)

    def compose(self) -> ComposeResult:
        yield self._box

    def on_mount(self) -> None:
        set_title(self._box, f"compare {len(self._runs)} runs")
        sign = f" {GLYPHS.separator} "
        self._box.border_subtitle = sign.join(
            ("x axis", "l losses", "↑ ↓ scroll", f"{key('app.help')} help", "Esc back")
        )
        self._box.focus()
        self.add_class("-reading")
        self._draw()
        self.run_worker(self._follow())

    # -- what the user does ---------------------------------------------------------------------------------------

    def action_axis(self) -> None:
        """Switch to the next axis."""
        self._axis = (self._axis + 1) % len(_AXES)
        self._draw()

    def action_losses(self) -> None:
        """Switch between both losses and one of them."""
        self._losses = (self._losses + 1) % len(_SHOWN)
        self._draw()

    def action_chart(self, action: str) -> None:
        """Change the view of the chart."""
        if action in ("next", "previous"):
            known = titles(live.replay.curves for live in self._runs)
            self._quantity = neighbor(known, self._quantity, action)
            self._draw()
        else:
            self._charts.act(action)

    def action_leave(self) -> None:
        """Close the comparison."""
        self.dismiss(None)

    def on_resize(self, event: events.Resize) -> None:
        self._show_tables()

    # -- the journals ---------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Read all journals, a sample of the long ones first, then each second what was added to them."""
        runs = [live.run for live in self._runs]
        self._recipes, self._names = await asyncio.to_thread(_read_recipes_and_names, runs)
        await asyncio.gather(*map(self._read_journal, self._runs))
        while True:
            await asyncio.sleep(_SECONDS)
            for live in self._runs:
                if not live.replay.is_over:
                    before = live.replay.seq
                    await live.catch_up()
                    if live.replay.seq != before or live.replay.is_over:
                        self._show()

    async def _read_journal(self, live: LiveRun) -> None:
        await live.catch_up(self._show)
        self._read.add(live.run.id)
        self._show()

    def _show(self) -> None:
        missing = [live for live in self._runs if live.run.id not in self._read]
        self.set_class(bool(missing), "-reading")
        shares = [
            f"{plain(live.run.id)} {run_words.reading(live.replay)}" for live in missing if live.replay.is_partial
        ]
        self._progress.show(plain_content(", ".join(shares) or "Reading …", "$text-muted"))
        self._draw()
        self._show_tables()

    # -- the chart ------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        scale = scale_of(_AXES[self._axis], self._runs)
        losses = _SHOWN[self._losses]
        names = self._names or [live.run.id for live in self._runs]
        empty = "No run has logged this loss." if not self.has_class("-reading") else "Reading …"
        self._charts.show(self._runs, names, scale, self._quantity, losses, empty)
        set_title(self._box, f"{title_of(self._quantity, losses)} over {scale.title}")

    # -- the tables -----------------------------------------------------------------------------------------------

    def _show_tables(self) -> None:
        if not self._names:
            return
        metrics = [_figures(live) for live in self._runs]
        figures, best = metric_rows(metrics, GLYPHS.arrow), best_metrics(metrics)
        # One column is kept for the scrollbar, whether it is shown yet or not.
        width, accent = self._box.content_size.width - 1, self.app.theme_variables["accent"]
        drawn = (figures, width)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        self._results.update(table_of("results", self._names, figures, width, accent, best))
        differences = difference_rows(self._recipes)
        self._differences.update(
            table_of("recipe differences", self._names, differences, width, accent)
            if differences
            else Text("The recipes are identical.", style="dim")
        )


def _figures(live: LiveRun) -> RunMetrics:
    spent = live.replay.curves.seconds.last
    return metrics_of(live.run, live.replay, spent[1] if spent else 0.0)


def _read_recipes_and_names(runs: Sequence[RunFolder]) -> tuple[list[dict[str, Any] | None], list[str]]:
    """Read the recipes and names of runs, off the event loop."""
    return [recipe_of(run) for run in runs], [run.name for run in runs]
