"""Who answers in Chat: chosen, switched, made stronger, added up, put side by side. The talk itself is elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from textual import on

from screens.chat.targets import SMALLEST_STEP, ReplyTarget, candidates, runs_with_adapters
from screens.messages import RecipeChanged, RunSelected, RunsRenamed, StatusChanged
from screens.shell.header import short_name
from screens.widgets.line_painted import PacedPane
from workbench.engine.client.conversations import parse_parts
from workbench.engine.client.protocol import AdapterPart
from workbench.errors import WorkbenchError

_LARGEST_SCALE = 2.0


class ReplyTargets(PacedPane):
    """The part of the pane that keeps who answers: ``one`` alone, or those in ``beside`` next to each other.

    ``under`` names the one whose base serves them all, empty for a model's own.
    """

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self.one = ReplyTarget("", bare=True)
        self.beside: tuple[ReplyTarget, ...] = ()
        self.under = ""
        self.paused: str | None = None
        self._picked = False

    def show_target(self) -> None:
        """Somebody else answers: show it."""
        raise NotImplementedError

    # -- what the app tells ---------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self.paused = self._run_that_stands()
        self.run_worker(self._choose_target(), group="target", exclusive=True)

    @on(RunSelected)
    def _run_selected(self, message: RunSelected) -> None:
        self._take_target(message.run)

    @on(RunsRenamed)
    def _runs_renamed(self) -> None:
        self.show_target()

    @on(RecipeChanged)
    def _recipe_changed(self) -> None:
        self.on_shown()

    @on(StatusChanged)
    def _status_changed(self) -> None:
        if self._run_that_stands() != self.paused:
            self.on_shown()

    def _run_that_stands(self) -> str | None:
        status = self.session.status
        return status.run if status is not None and status.state == "paused" else None

    async def _choose_target(self) -> None:
        """Without a choice a paused run answers, or the newest adapter; where there is none, the recipe's base."""
        if not self._picked:
            runs = [self.paused] if self.paused else await asyncio.to_thread(runs_with_adapters, self.session.home)
            target = runs[0] if runs else None
            if self.one.target != (target or self.session.recipe.model.source):
                self.one, self.under = self._reply_target(target), target or ""
        if self.is_attached:
            self.show_target()

    def _reply_target(self, target: str | None) -> ReplyTarget:
        return ReplyTarget(target) if target else ReplyTarget(self.session.recipe.model.source, bare=True)

    def _take_target(self, target: str | None) -> None:
        self.one, self.under, self._picked = self._reply_target(target), target or "", True
        self.beside = ()
        self.show_target()

    # -- who answers ----------------------------------------------------------------------------------------------

    def action_switch(self) -> None:
        """Adapter off and on."""
        self.one = replace(self.one, adapter=not self.one.adapter)
        self.show_target()

    def action_beside(self) -> None:
        """Base and tuned side by side, and back to one."""
        tuned = replace(self.one, adapter=True)
        self._put_beside(() if self.beside else (replace(tuned, adapter=False, scale=1.0, combine=()), tuned))

    def action_scale(self, steps: int) -> None:
        """Let the adapter count for more or less."""
        scale = round(min(max(self.one.scale + steps * SMALLEST_STEP, 0), _LARGEST_SCALE), 2)
        self.one = replace(self.one, scale=scale)
        self.beside = tuple(replace(one, scale=scale) if one.is_tuned else one for one in self.beside)
        self.show_target()

    async def action_cycle(self, by: int) -> None:
        """The next adapter on the base that is in memory."""
        found = await asyncio.to_thread(candidates, self.session.home)
        model = next((one.model for one in found if one.target == self.one.target), self.session.recipe.model.source)
        names = [one.target for one in found if one.model == model and one.whole]
        if not names:
            self.notify("No other adapter uses this base.", timeout=3)
            return
        here = names.index(self.one.target) if self.one.target in names else -1 if by > 0 else 0
        self.one, self._picked = ReplyTarget(names[(here + by) % len(names)], scale=self.one.scale), True
        self.under = self.under or self.one.target
        self.beside = ()
        self.show_target()

    async def action_pick(self) -> None:
        """Choose who answers."""
        from screens.shell.pick import PickDialog

        def picked(answer: str | None) -> None:
            if answer is not None:
                self._take_target(answer or None)

        choices = await self._choices(f"{short_name(self.session.recipe.model.source)} (base model only)")
        self.app.push_screen(PickDialog("Choose model", choices, "" if self.one.bare else self.one.target), picked)

    async def action_columns(self) -> None:
        """Choose who answers side by side."""
        from screens.chat.dialogs import ColumnsDialog

        def picked(answer: list[str] | None) -> None:
            if answer is None:
                return
            named = [name for name in answer if name]
            anchor = named[0] if named else self.one.target
            if named and self.one.target not in named:
                self.one, self.under, self._picked = ReplyTarget(named[0]), named[0], True
            base = ReplyTarget(anchor, bare=not named and self.one.bare, adapter=False)
            columns = tuple(ReplyTarget(name, scale=self.one.scale) if name else base for name in answer)
            self._put_beside(columns if len(columns) > 1 else ())

        marked = [one.target if one.is_tuned else "" for one in self.beside or (self.one,)]
        self.app.push_screen(ColumnsDialog(await self._choices("base model, adapter off"), marked), picked)

    async def _choices(self, base: str) -> list[tuple[str, str]]:
        found = await asyncio.to_thread(candidates, self.session.home)
        choices = [(one.target, one.label) for one in found]
        if self.paused:
            choices = [c for c in choices if c[0] != self.paused]
            choices.insert(0, (self.paused, f"{self.session.names.of(self.paused)}, paused: current weights"))
        return [*choices, ("", base)]

    async def action_weigh(self) -> None:
        """Add adapters up."""
        from screens.shell.dialogs import LineDialog

        def typed(text: str | None) -> None:
            if text is None:
                return
            try:
                parts = tuple(parse_parts(text)) if text.strip() else ()
            except WorkbenchError as error:
                self.workbench.show_error(error)
                return
            if parts:
                self.one, self._picked = ReplyTarget(parts[0].target, scale=self.one.scale, combine=parts), True
                self.under = parts[0].target
            else:
                self.one = replace(self.one, combine=())
            self.beside = ()
            self.show_target()

        text = "Adapters on one base, each with a weight from -2 to 2. Leave empty to stop combining."
        self.app.push_screen(
            LineDialog("Combine adapters", text, _sum_words(self.one), "run-01=0.7, run-02=0.3"), typed
        )

    def _put_beside(self, columns: tuple[ReplyTarget, ...]) -> None:
        self.beside = columns
        if columns and self.has_class("-settings"):
            self.remove_class("-settings")  # the columns need its place
        self.show_target()


def _sum_words(one: ReplyTarget) -> str:
    parts = one.combine or (() if one.bare else (AdapterPart(target=one.target),))
    return ", ".join(f"{part.target}={part.weight:g}" for part in parts)
