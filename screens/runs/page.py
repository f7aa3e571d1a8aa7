"""One run of the history: its curve, its figures, its recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical, VerticalScroll

from screens.charts.loss_chart import Curve, LossChart
from screens.runs import facts as run_facts
from screens.shell import run_words
from screens.widgets.facts import Facts
from screens.widgets.line_painted import Words, entitle
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult
    from textual.content import Content
    from textual.widget import Widget

    from workbench.runs.folder import RunFolder
    from workbench.runs.live_run import ChartReplay


class RunPage(VerticalScroll):
    """What is known of one run. On a narrow terminal all of it scrolls, on a wide one the recipe does."""

    def compose(self) -> ComposeResult:
        with Vertical(id="curve"):
            yield LossChart()
            yield Facts(stacked=True, id="facts")
        with VerticalScroll(id="recipe"):
            yield Words(id="yaml")

    def on_mount(self) -> None:
        self.query_one(LossChart).border_title = "loss over steps"
        self.query_one("#recipe").border_title = "recipe"

    def first_focus(self, *, narrow: bool) -> Widget:
        """What scrolls."""
        return self if narrow else self.query_one("#recipe")

    def begin(self, run: RunFolder, name: str) -> None:
        """Another run, whose journal is still to be read."""
        self.query_one(LossChart).show((), nothing="Reading the journal …")
        self.query_one("#facts", Facts).show(())
        self.name_it(name)
        self.query_one("#yaml", Words).show(_recipe_text(run.recipe_file))

    def name_it(self, name: str) -> None:
        """What the run is called."""
        entitle(self.query_one("#facts"), name)

    def show(self, run: ChartReplay) -> None:
        """What its journal says by now."""
        entitle(self.query_one(LossChart), run_words.title_of_curve(run))
        self.query_one(LossChart).show(
            [Curve("train", run.curves.train), Curve("eval", run.curves.held_out, marked=True)],
            end=run.summary.max_steps,
            nothing="No steps logged yet.",
        )
        self.query_one("#facts", Facts).show(run_facts.facts(run))


def _recipe_text(path: Path) -> Content:
    try:
        return plain_content(path.read_text(encoding="utf-8", errors="replace"), lines=True)
    except OSError as error:
        return plain_content(f"The recipe cannot be read: {error.strerror}.")
