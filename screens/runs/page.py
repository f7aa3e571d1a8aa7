"""The page of one run: its curve, its metrics, its recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical, VerticalScroll

from screens.charts.run_chart import RunChart
from screens.runs import facts as run_facts
from screens.shell import run_words
from screens.widgets.facts import Facts
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import ComposeResult
    from textual.content import Content
    from textual.widget import Widget

    from workbench.runs.folder import RunFolder
    from workbench.runs.live_run import ChartReplay


class RunPage(VerticalScroll):
    """Shows one run. On a narrow terminal the whole page scrolls, on a wide one the recipe."""

    def __init__(self) -> None:
        super().__init__(id="one")
        self._chart = RunChart()
        self._facts = Facts(stacked=True, id="facts")
        self._run: ChartReplay | None = None
        self._recipe = Paragraph(id="yaml")
        self._recipe_box = VerticalScroll(self._recipe, id="recipe")

    def compose(self) -> ComposeResult:
        self._chart.border_title = "loss over steps"
        self._recipe_box.border_title = "recipe"
        yield Vertical(self._chart, self._facts, id="curve")
        yield self._recipe_box

    def first_focus(self, *, narrow: bool) -> Widget:
        """Return the part that scrolls."""
        return self if narrow else self._recipe_box

    def begin(self, run: RunFolder, name: str) -> None:
        """Show another run, whose journal is still to be read."""
        self._chart.show((), placeholder="Reading the journal …")
        self._facts.show(())
        self.name_it(name)
        self._recipe.show(_recipe_text(run.recipe_file))

    def name_it(self, name: str) -> None:
        """Show the name of the run."""
        set_title(self._facts, name)

    def show(self, run: ChartReplay) -> None:
        """Show what the run's journal holds by now."""
        self._run = run
        self._chart.show_run(run.curves, end=run.summary.max_steps, placeholder="No steps logged yet.")
        set_title(self._chart, run_words.title_of_curve(run, self._chart.quantity))
        self._facts.show(run_facts.facts(run))

    def use_chart(self, action: str) -> None:
        """Change the view of the chart."""
        self._chart.act(action)
        if self._run is not None:
            set_title(self._chart, run_words.title_of_curve(self._run, self._chart.quantity))


def _recipe_text(path: Path) -> Content:
    try:
        return plain_content(path.read_text(encoding="utf-8", errors="replace"), lines=True)
    except OSError as error:
        return plain_content(f"The recipe cannot be read: {error.strerror}.")
