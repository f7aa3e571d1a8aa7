"""Chooses who replies in Chat: one model or adapter, or several side by side."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from screens.chat.targets import SCALE_STEP, ReplyTarget, candidates, runs_with_adapters
from screens.shell.header import short_name
from workbench.engine.client.conversations import parse_parts
from workbench.engine.client.protocol import AdapterPart
from workbench.engine.client.requests import here
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from screens.workbench import Workbench

_LARGEST_SCALE = 2.0
# The value of the line that asks for a folder; no target has this name.
_FOLDER = "\0folder"


class ReplyTargets:
    """The chosen reply targets, and the dialogs that choose others.

    Args:
        workbench: the app.
        changed: called after another target was chosen.

    Attributes:
        single: the target that replies alone.
        side_by_side: the targets that reply side by side; empty while ``single`` replies alone.
        under: the target whose base all of them use; empty for a model's own.
        paused: the paused run, which can reply with its current weights.
    """

    def __init__(self, workbench: Workbench, changed: Callable[[], None]) -> None:
        self._workbench = workbench
        self._changed = changed
        self.single = ReplyTarget("", is_model=True)
        self.side_by_side: tuple[ReplyTarget, ...] = ()
        self.under = ""
        self.paused: str | None = None
        self._is_chosen = False
        self._bases: dict[str, str] = {}

    # -- without a choice -----------------------------------------------------------------------------------------

    def paused_changed(self) -> bool:
        """Update ``paused`` from the engine's state; returns whether it is another run than before."""
        before, status = self.paused, self._workbench.session.status
        self.paused = status.run if status is not None and status.state == "paused" else None
        return self.paused != before

    async def choose_default(self) -> None:
        """Until the user chooses: take the paused run, else the newest adapter, else the recipe's base model."""
        if not self._is_chosen:
            session = self._workbench.session
            runs = [self.paused] if self.paused else await asyncio.to_thread(runs_with_adapters, session.home)
            target = runs[0] if runs else None
            if self.single.target != (target or session.recipe.model.source):
                self.single, self.under = self._reply_target(target), target or ""
        self._changed()

    def _reply_target(self, target: str | None) -> ReplyTarget:
        return (
            ReplyTarget(target) if target else ReplyTarget(self._workbench.session.recipe.model.source, is_model=True)
        )

    # -- the base -------------------------------------------------------------------------------------------------

    @property
    def base(self) -> str:
        """The base that the user has named for the current adapter; empty for the one that the adapter names."""
        return self._bases.get(self.under or self.single.target, "")

    def ask_base(self, error: WorkbenchError, named: Callable[[], None]) -> None:
        """Ask for the base of the current adapter, which is not here under its name.

        Args:
            error: says which name that is, and why there is no such model.
            named: called once the user has named another one.
        """
        from screens.dialogs.questions import LineDialog
        from screens.forms.path_kinds import MODEL

        target = self.under or self.single.target

        def typed(text: str | None) -> None:
            if text and text.strip():
                self._bases[target] = here(text.strip())
                named()

        text = f"{error.message}\n\nIf you have that model under another name or path, give it here."
        title = f"Base of {self.single.named(self._workbench.session.names)}"
        dialog = LineDialog(
            title, text, self._bases.get(target, ""), "owner/name, a folder or a .gguf file", paths=MODEL
        )
        self._workbench.push_screen(dialog, typed)

    # -- one target -----------------------------------------------------------------------------------------------

    def take(self, target: str | None) -> None:
        """Let a run or checkpoint reply; None for the recipe's base model."""
        self.single, self.under, self._is_chosen = self._reply_target(target), target or "", True
        self.side_by_side = ()
        self._changed()

    def switch(self) -> None:
        """Switch the adapter off or on."""
        self.single = replace(self.single, adapter=not self.single.adapter)
        self._changed()

    def scale(self, steps: int) -> None:
        """Increase or decrease the scale of the adapter."""
        scale = round(min(max(self.single.scale + steps * SCALE_STEP, 0), _LARGEST_SCALE), 2)
        self.single = replace(self.single, scale=scale)
        self.side_by_side = tuple(
            replace(target, scale=scale) if target.is_tuned else target for target in self.side_by_side
        )
        self._changed()

    async def cycle(self, by: int) -> None:
        """Take the next or the previous adapter on the same base."""
        session = self._workbench.session
        found = await asyncio.to_thread(candidates, session.home)
        model = next((each.model for each in found if each.target == self.single.target), session.recipe.model.source)
        names = [each.target for each in found if each.model == model and each.is_final]
        if not names:
            self._workbench.notify("No other adapter uses this base.", timeout=3)
            return
        here = names.index(self.single.target) if self.single.target in names else -1 if by > 0 else 0
        self.single, self._is_chosen = ReplyTarget(names[(here + by) % len(names)], scale=self.single.scale), True
        self.under = self.under or self.single.target
        self.side_by_side = ()
        self._changed()

    async def pick(self) -> None:
        """Ask for a run, checkpoint, adapter folder or base model."""
        from screens.dialogs.pick import PickDialog

        def picked(answer: str | None) -> None:
            if answer == _FOLDER:
                self._pick_folder()
            elif answer is not None:
                self.take(answer or None)

        base = f"{short_name(self._workbench.session.recipe.model.source)} (base model only)"
        choices = [*await self._choices(base), (_FOLDER, "an adapter in a folder…")]
        dialog = PickDialog("Choose model", choices, "" if self.single.is_model else self.single.target)
        self._workbench.push_screen(dialog, picked)

    def _pick_folder(self) -> None:
        from screens.dialogs.questions import LineDialog
        from screens.forms.path_kinds import FOLDER

        def folder_of(text: str) -> Path:
            return Path(text.strip()).expanduser().absolute()

        def problem_of(text: str) -> str:
            folder = folder_of(text)
            return "" if (folder / "adapter_config.json").is_file() else f"{folder} has no adapter_config.json."

        def typed(text: str | None) -> None:
            if text is not None:
                self.take(str(folder_of(text)))

        about = "A PEFT adapter that was made elsewhere. Its base is the one that it names, or one that you name."
        self._workbench.push_screen(LineDialog("Chat with an adapter", about, check=problem_of, paths=FOLDER), typed)

    async def combine(self) -> None:
        """Ask for adapters and their weights, to be added up."""
        from screens.dialogs.questions import LineDialog

        def typed(text: str | None) -> None:
            if text is None:
                return
            try:
                parts = tuple(parse_parts(text)) if text.strip() else ()
            except WorkbenchError as error:
                self._workbench.show_error(error)
                return
            if parts:
                self.single, self._is_chosen = (
                    ReplyTarget(parts[0].target, scale=self.single.scale, combine=parts),
                    True,
                )
                self.under = parts[0].target
            else:
                self.single = replace(self.single, combine=())
            self.side_by_side = ()
            self._changed()

        text = "Adapters on one base, each with a weight from -2 to 2. Leave empty to stop combining."
        dialog = LineDialog("Combine adapters", text, _parts_text(self.single), "run-01=0.7, run-02=0.3")
        self._workbench.push_screen(dialog, typed)

    # -- several targets ------------------------------------------------------------------------------------------

    def toggle_beside(self) -> None:
        """Compare base and tuned side by side, or go back to one target."""
        tuned = replace(self.single, adapter=True)
        base = replace(tuned, adapter=False, scale=1.0, combine=())
        self.side_by_side = () if self.side_by_side else (base, tuned)
        self._changed()

    async def pick_columns(self) -> None:
        """Ask for the targets to compare side by side."""
        from screens.chat.dialogs import ColumnsDialog

        def picked(answer: list[str] | None) -> None:
            if answer is None:
                return
            named = [name for name in answer if name]
            anchor = named[0] if named else self.single.target
            if named and self.single.target not in named:
                self.single, self.under, self._is_chosen = ReplyTarget(named[0]), named[0], True
            base = ReplyTarget(anchor, is_model=not named and self.single.is_model, adapter=False)
            columns = tuple(ReplyTarget(name, scale=self.single.scale) if name else base for name in answer)
            self.side_by_side = columns if len(columns) > 1 else ()
            self._changed()

        marked = [target.target if target.is_tuned else "" for target in self.side_by_side or (self.single,)]
        self._workbench.push_screen(ColumnsDialog(await self._choices("base model, adapter off"), marked), picked)

    async def _choices(self, base: str) -> list[tuple[str, str]]:
        """Return (value, label) of all targets, the paused run first and the base model last."""
        session = self._workbench.session
        found = await asyncio.to_thread(candidates, session.home)
        choices = [(each.target, each.label) for each in found]
        if self.paused:
            choices = [c for c in choices if c[0] != self.paused]
            choices.insert(0, (self.paused, f"{session.names.of(self.paused)}, paused: current weights"))
        return [*choices, ("", base)]


def _parts_text(target: ReplyTarget) -> str:
    parts = target.combine or (() if target.is_model else (AdapterPart(target=target.target),))
    return ", ".join(f"{part.target}={part.weight:g}" for part in parts)
