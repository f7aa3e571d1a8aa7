"""The sweep dialog: settings and their values, and the runs they make with the memory each needs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from textual import on
from textual.containers import VerticalGroup, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from screens.dialogs.questions import Dialog
from screens.widgets.glyphs import ENTER
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content
from workbench.adapters.registry import size_and_alpha
from workbench.errors import WorkbenchError
from workbench.recipe.sweep import RANKS, Variant, parse_over, sweep
from workbench.units import gib

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.session import Session
    from workbench.planning.start_checks import Verdict
    from workbench.recipe.schema import Recipe

_PAUSE_IN_TYPING = 0.3


class SweepDialog(Dialog[list["Recipe"]]):
    """Asks for a sweep and returns the recipes to queue. Peaks are for records of the maximum length."""

    DEFAULT_CSS = """
    SweepDialog > VerticalGroup { width: 92; }
    SweepDialog Paragraph { height: auto; }
    SweepDialog #runs { margin-top: 1; }
    SweepDialog .keys { color: $text-muted; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._variants: list[Variant] = []
        self._plan = Paragraph(id="plan")
        self._problem = Static(classes="problem", markup=False)

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Sweep"
            yield Static(
                "One run per value. With several settings, separated by semicolons, one run per "
                "combination:\n"
                "adapter.r=8,16; training.learning_rate=1e-4,2e-4",
                markup=False,
                classes="keys",
            )
            yield Input(
                "; ".join(f"{path}={','.join(map(str, values))}" for path, values in RANKS.items()), compact=True
            )
            with VerticalScroll(can_focus=False, id="runs"):
                yield self._plan
            yield self._problem
            yield Static(f"{ENTER} add to queue   Esc back", classes="keys", markup=False)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        problem = ""
        self._variants = []
        try:
            over = dict(parse_over(part) for part in event.value.split(";") if part.strip())
            self._variants = sweep(self._session.recipe, over) if over else []
        except WorkbenchError as error:
            problem = str(error)
        self._problem.update(plain_content(problem, lines=True))
        self._draw([None] * len(self._variants), pending=True)
        self.run_worker(self._price(self._variants), exclusive=True, group="price")

    async def _price(self, variants: list[Variant]) -> None:
        """Show the predicted peak of each run, once nothing was typed for a moment."""
        await asyncio.sleep(_PAUSE_IN_TYPING)
        verdicts = await asyncio.to_thread(_judged, self._session, [variant.recipe for variant in variants])
        if self.is_attached and variants is self._variants:
            self._draw(verdicts)

    def _draw(self, verdicts: list[Verdict | None], *, pending: bool = False) -> None:
        count = len(verdicts)
        lines = [Content.styled(f"{count} run{'' if count == 1 else 's'}", "bold")] if count else []
        lines += [
            _row(variant, verdict, pending=pending) for variant, verdict in zip(self._variants, verdicts, strict=True)
        ]
        self._plan.show(Content("\n").join(lines))

    @on(Input.Submitted)
    def _done(self) -> None:
        if self._variants:
            self.dismiss([variant.recipe for variant in self._variants])


def _judged(session: Session, recipes: list[Recipe]) -> list[Verdict | None]:
    from workbench.planning.start_checks import judge

    budget, tree = session.run_budget, session.skeleton
    if tree is None:
        return [None] * len(recipes)
    model = session.recipe.model
    verdicts: list[Verdict | None] = [None] * len(recipes)
    for index, recipe in enumerate(recipes):
        # What PEFT refuses is said when the runs are queued.
        with suppress(WorkbenchError):
            verdicts[index] = judge(tree, recipe, budget, session.traces) if recipe.model == model else None
    return verdicts


def _row(variant: Variant, verdict: Verdict | None, *, pending: bool) -> Content:
    adapter = variant.recipe.adapter
    if verdict is None:
        needs, style = ("…" if pending else "peak unknown"), "$foreground 70%"
    else:
        needs = f"{gib(verdict.needed_bytes)}, {verdict.fit}"
        style = {"fits": "$success", "tight": "$warning"}.get(verdict.fit, "$error")
    return Content.assemble(
        f"{plain(variant.recipe.output.name):<30} ",
        (f"{size_and_alpha(adapter):<18} ", "$foreground 70%"),
        (needs, style),
    )
