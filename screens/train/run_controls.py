"""What can be asked of the live run: its keys, the questions before them, and what was asked but is not done yet."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

from textual.binding import Binding

from screens.charts.scale import short_number
from screens.shell.dialogs import Choice, ChoiceDialog, LineDialog
from screens.shell.live_run import Story
from screens.widgets.line_painted import QuietPane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workbench.engine.client.protocol import ControlAction

CONTROLS: tuple[Binding, ...] = (
    Binding("g", "go_on", "Go on", id="run.go_on", tooltip="Let the run train on"),
    Binding("p", "pause", "Pause", id="run.pause", tooltip="Let it stand still, its model in memory or not"),
    Binding("s", "stop", "Stop", id="run.stop", tooltip="End it, keep its adapter and its whole state"),
    Binding("c", "checkpoint", "Checkpoint", id="run.checkpoint", tooltip="Write one after this step"),
    Binding("e", "evaluate", "Evaluate", id="run.evaluate", tooltip="Held-out loss and perplexity after this step"),
    Binding("x", "sample", "Sample", id="run.sample", tooltip="Have the fixed prompts answered after this step"),
    Binding("m", "menu", "More", id="run.menu", tooltip="All that can be asked of the run"),
    Binding("f", "release", "Free the memory", show=False, id="run.release", tooltip="While it is paused"),
    Binding("r", "rate", "Learning rate", show=False, id="run.rate", tooltip="Another peak"),
    Binding("n", "steps", "Number of steps", show=False, id="run.steps", tooltip="Train for more or fewer"),
    Binding("S", "discard", "Discard", show=False, key_display="S", id="run.discard",
            tooltip="End it, keep neither adapter nor checkpoint"),
    Binding("K", "kill", "Kill the engine", show=False, key_display="K", id="run.kill",
            tooltip="At once; the last checkpoint is kept"),
)  # fmt: skip
"""The footer has those that are wanted most; the menu, the palette and the help have all."""

BACK = Choice("b", "Back", "back")

_ASKED: dict[ControlAction, str] = {
    "pause": "pause",
    "resume": "go on",
    "checkpoint": "checkpoint",
    "evaluate": "evaluate",
    "sample": "sample replies",
    "learning_rate": "peak learning rate",
    "max_steps": "number of steps",
}

# In the order of the menu, which has what the footer has no room for.
_MENU = ("go_on", "pause", "release", "checkpoint", "evaluate", "sample", "rate", "steps", "stop", "discard", "kill")


class RunControlPane(QuietPane):
    """A pane over a run that may be live.

    What is asked is done between two steps of the run, and its journal says when; ``asked`` names what is to come.
    Another terminal reads the same journal, so that both show what either asked for once it is done.

    A subclass has :data:`CONTROLS` among its bindings.
    """

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._story: Story | None = None
        self._asked = ""
        self._asked_at = -1

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that cannot be used are not offered: what can be done follows from the engine's state."""
        if action not in (*_MENU, "menu"):
            return super().check_action(action, parameters)
        status = self.session.status
        if status is None or status.run is None:
            return False
        if action in ("kill", "menu"):
            return True
        if action == "go_on":
            return bool(status.paused) and not status.stopping
        if status.stopping:
            return None
        match action:
            case "pause":
                return not status.paused
            case "release":
                return bool(status.paused) and not self._memory_is_released
            case "stop" | "discard":
                return True
        # Nothing can be computed while the model is not in memory; it is done when the run goes on.
        return None if self._memory_is_released else True

    @property
    def asked(self) -> str:
        """What was asked last and is not done yet, in a few words; empty where nothing is."""
        story = self._story
        if story is None or story.is_over or (story.done is not None and story.done["seq"] > self._asked_at):
            self._asked = ""
        return self._asked

    @property
    def _memory_is_released(self) -> bool:
        return self._story is not None and self._story.paused is not None and bool(self._story.paused.get("release"))

    # -- what is done between two steps ---------------------------------------------------------------------------

    def action_go_on(self) -> None:
        """End a pause."""
        self._ask("resume")

    def action_pause(self) -> None:
        """Let the run stand still."""
        self._choose(
            "Pause?",
            "The run stands still after its present step until g lets it go on. With its memory freed, others can have "
            "the device meanwhile; going on loads the model again.",
            (Choice("k", "Keep it loaded", "keep"), Choice("f", "Free the memory", "release"), BACK),
            lambda answer: self._control("pause", release=answer == "release"),
        )

    def action_release(self) -> None:
        """Give the memory of a paused run back."""
        self.workbench.attempt(self._control("pause", release=True))

    def action_checkpoint(self) -> None:
        """Write a checkpoint now."""
        self._ask("checkpoint")

    def action_evaluate(self) -> None:
        """Evaluate on the held-out records now."""
        self._ask("evaluate")

    def action_sample(self) -> None:
        """Have the fixed prompts answered now."""
        self._ask("sample")

    def action_rate(self) -> None:
        """Another peak learning rate."""
        now = self._story.peak_rate if self._story else None
        text = "The peak learning rate from the next step on; the schedule falls from it as it did before."
        typed = short_number(now) if now else ""
        self._ask_number("learning_rate", LineDialog("Learning rate", text, typed, "1e-4", _no_rate))

    def action_steps(self) -> None:
        """More steps or fewer."""
        summary = self._story.summary if self._story else None
        text = "Optimizer steps in all; the schedule is made anew for them."
        if summary is not None:
            text += f" With {summary.step} or fewer the run ends now, as one that has finished."
        typed = str(summary.max_steps) if summary else ""
        self._ask_number("max_steps", LineDialog("Number of steps", text, typed, "500", _no_steps))

    def _ask_number(self, action: ControlAction, dialog: LineDialog) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._ask(action, _number(text))

        self.app.push_screen(dialog, answered)

    def _ask(self, action: ControlAction, value: float | None = None) -> None:
        self.workbench.attempt(self._control(action, value))

    async def _control(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        at = self._story.seq if self._story else -1
        await self.session.engine.control(action, value, release=release)
        self._asked = _ASKED[action] + ("" if value is None else f" {value:g}")
        self._asked_at = at
        self.draw()

    def draw(self) -> None:
        """Bring what is shown up to date."""

    # -- how it ends ----------------------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """End the run and keep its adapter."""
        self._choose(
            "Stop and save?",
            "The run ends within one micro-step. Its adapter can be chatted with, and g lets the run go on later."
            + self._next_starts,
            (Choice("s", "Stop and save", "save"), *self._hold, Choice("k", "Keep training", "back")),
            lambda answer: self._stop(save=True, hold=answer == "hold"),
        )

    def action_discard(self) -> None:
        """End the run and keep no adapter."""
        self._choose(
            "Stop and discard?",
            "The run ends within one micro-step; neither adapter nor checkpoint is kept. Its curve and its log stay in "
            "Runs." + self._next_starts,
            (Choice("d", "Discard", "discard"), *self._hold, Choice("k", "Keep training", "back")),
            lambda answer: self._stop(save=False, hold=answer == "hold"),
        )

    @property
    def _next_is_due(self) -> bool:
        status = self.session.status
        return status is not None and bool(status.queued) and not status.queue_held

    @property
    def _next_starts(self) -> str:
        return " The next run of the queue starts then." if self._next_is_due else ""

    @property
    def _hold(self) -> tuple[Choice, ...]:
        return (Choice("h", "Hold the queue too", "hold"),) if self._next_is_due else ()

    async def _stop(self, *, save: bool, hold: bool) -> None:
        if hold:
            from workbench.planning.queue import QueueRequest

            await self.session.engine.line_up(QueueRequest(action="hold"))
        await self.session.engine.stop(save=save)

    def action_kill(self) -> None:
        """End the engine at once."""
        checkpoint = self._story.checkpoint if self._story else 0
        kept = (
            f"goes on from its checkpoint of step {checkpoint}" if checkpoint else "has no checkpoint and begins anew"
        )
        self._choose(
            "Kill the engine?",
            "The harder stop, for an engine that does not obey: its process ends at once, and all of its memory is "
            f"free. What was trained since the last checkpoint is lost; g lets the run go on: it {kept}.",
            (Choice("y", "Kill it", "kill"), Choice("k", "Keep training", "back")),
            lambda _: self.session.engine.kill(),
        )

    def action_menu(self) -> None:
        """All that can be asked of the run."""
        shown = {binding.action: binding for _, binding in self._bindings}
        offered = [shown[name] for name in _MENU if self.check_action(name, ())]
        choices = [Choice(one.key, f"{one.description}: {one.tooltip}", one.action) for one in offered]

        def answered(action: str | None) -> None:
            if action not in (None, BACK.value):
                self.app.call_later(self.run_action, str(action))

        text = "Done between two steps; the line under the figures says when."
        self.app.push_screen(ChoiceDialog("The run", text, (*choices, BACK), stacked=True), answered)

    def _choose(
        self, title: str, text: str, choices: tuple[Choice, ...], act: Callable[[str], Awaitable[object]]
    ) -> None:
        """Ask, and do what was chosen unless that was to go back."""

        async def acted(answer: str) -> None:
            await act(answer)

        def answered(answer: str | None) -> None:
            if answer not in (None, BACK.value):
                self.workbench.attempt(acted(str(answer)))

        self.app.push_screen(ChoiceDialog(title, text, choices), answered)


def _number(text: str) -> float:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return nan


def _no_rate(text: str) -> str:
    return "" if 0 < _number(text) <= 1 else "A learning rate is a number between 0 and 1, such as 1e-4."


def _no_steps(text: str) -> str:
    value = _number(text)
    return "" if value >= 1 and value.is_integer() else "A number of steps is a whole number from 1 on."
