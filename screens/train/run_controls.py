"""What can be asked of the live run: its keys, the questions before them, and what was asked but is not done yet."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

from textual.binding import Binding

from screens.charts.scale import short_number
from screens.shell.dialogs import Choice, ChoiceDialog, LineDialog
from screens.widgets.line_painted import PacedPane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workbench.engine.client.protocol import ControlAction
    from workbench.runs.live_run import LiveRun

CONTROLS: tuple[Binding, ...] = (
    Binding("g", "go_on", "Resume", id="run.go_on", tooltip="Resume the paused run"),
    Binding("p", "pause", "Pause", id="run.pause", tooltip="Pause; optionally release GPU memory"),
    Binding("s", "stop", "Stop", id="run.stop", tooltip="Stop and save (resumable)"),
    Binding("c", "checkpoint", "Checkpoint", id="run.checkpoint", tooltip="Save checkpoint after this step"),
    Binding("e", "evaluate", "Evaluate", id="run.evaluate", tooltip="Held-out loss and perplexity after this step"),
    Binding("x", "sample", "Sample", id="run.sample", tooltip="Generate replies to the fixed prompts after this step"),
    Binding("m", "menu", "More", id="run.menu", tooltip="List all actions on the run"),
    Binding("f", "release", "Release GPU memory", show=False, id="run.release", tooltip="Unload the paused model"),
    Binding("r", "rate", "Learning rate", show=False, id="run.rate", tooltip="Change learning rate"),
    Binding("n", "steps", "Max steps", show=False, id="run.steps", tooltip="Change max steps"),
    Binding("S", "discard", "Discard", show=False, key_display="S", id="run.discard",
            tooltip="Stop and delete adapter and checkpoints"),
    Binding("K", "kill", "Force-kill engine", show=False, key_display="K", id="run.kill",
            tooltip="Force-kill an engine that isn't responding; the last checkpoint is kept"),
)  # fmt: skip
"""The footer has those that are wanted most; the menu, the palette and the help have all."""

BACK = Choice("b", "Back", "back")

_ASKED: dict[ControlAction, str] = {
    "pause": "pause",
    "resume": "resume",
    "checkpoint": "checkpoint",
    "evaluate": "evaluate",
    "sample": "sample replies",
    "learning_rate": "peak learning rate",
    "max_steps": "max steps",
}

# In the order of the menu, which has what the footer has no room for.
_MENU = ("go_on", "pause", "release", "checkpoint", "evaluate", "sample", "rate", "steps", "stop", "discard", "kill")


class RunControlPane(PacedPane):
    """A pane over a run that may be live.

    What is asked is done between two steps of the run, and its journal says when; ``asked`` names what is to come.
    Another terminal reads the same journal, so that both show what either asked for once it is done.

    A subclass has :data:`CONTROLS` among its bindings.
    """

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._live: LiveRun | None = None
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
        # Nothing can be computed while the model is not in memory; it is done when the run resumes.
        return None if self._memory_is_released else True

    @property
    def asked(self) -> str:
        """What was asked last and is not done yet, in a few words; empty where nothing is."""
        run = self._live.replay if self._live is not None else None
        if run is None or run.is_over or (run.last_request is not None and run.last_request.seq > self._asked_at):
            self._asked = ""
        return self._asked

    @property
    def _memory_is_released(self) -> bool:
        paused = self._live.replay.paused if self._live is not None else None
        return paused is not None and paused.release

    # -- what is done between two steps ---------------------------------------------------------------------------

    def action_go_on(self) -> None:
        """End a pause."""
        self._ask("resume")

    def action_pause(self) -> None:
        """Let the run stand still."""
        self._choose(
            "Pause?",
            "The run pauses after this step until you press g to resume it. Release its GPU memory to use the GPU for "
            "something else meanwhile; resuming then loads the model again.",
            (Choice("k", "Keep model loaded", "keep"), Choice("f", "Release GPU memory", "release"), BACK),
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
        """Change the peak learning rate."""
        now = self._live.replay.peak_rate if self._live else None
        text = "The new peak learning rate, from the next step on. The schedule keeps its shape."
        typed = short_number(now) if now else ""
        self._ask_number("learning_rate", LineDialog("Learning rate", text, typed, "1e-4", _no_rate))

    def action_steps(self) -> None:
        """More steps or fewer."""
        summary = self._live.replay.summary if self._live else None
        text = "Total optimizer steps. The schedule is recomputed for them."
        if summary is not None:
            text += f" With {summary.step} or fewer the run finishes now."
        typed = str(summary.max_steps) if summary else ""
        self._ask_number("max_steps", LineDialog("Max steps", text, typed, "500", _no_steps))

    def _ask_number(self, action: ControlAction, dialog: LineDialog) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._ask(action, _number(text))

        self.app.push_screen(dialog, answered)

    def _ask(self, action: ControlAction, value: float | None = None) -> None:
        self.workbench.attempt(self._control(action, value))

    async def _control(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        at = self._live.replay.seq if self._live else -1
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
            "The run stops within one micro-step and saves its adapter and state. Press g to resume it later."
            + self._next_starts,
            (Choice("s", "Stop and save", "save"), *self._hold, Choice("k", "Keep training", "back")),
            lambda answer: self._stop(save=True, hold=answer == "hold"),
        )

    def action_discard(self) -> None:
        """End the run and keep no adapter."""
        self._choose(
            "Stop and discard?",
            "The run stops within one micro-step. Its adapter and checkpoints are deleted; its curve and log stay in "
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
        return " The next queued run then starts." if self._next_is_due else ""

    @property
    def _hold(self) -> tuple[Choice, ...]:
        return (Choice("h", "Also hold the queue", "hold"),) if self._next_is_due else ()

    async def _stop(self, *, save: bool, hold: bool) -> None:
        if hold:
            from workbench.planning.queue import QueueRequest

            await self.session.engine.change_queue(QueueRequest(action="hold"))
        await self.session.engine.stop(save=save)

    def action_kill(self) -> None:
        """End the engine at once."""
        checkpoint = self._live.replay.checkpoint if self._live else 0
        kept = f"resume from its checkpoint at step {checkpoint}" if checkpoint else "restart: it has no checkpoint yet"
        self._choose(
            "Force-kill the engine?",
            "Force-kills an engine that isn't responding: its process ends at once and frees all its memory. Training "
            f"since the last checkpoint is lost. Press g afterwards to {kept}.",
            (Choice("y", "Force-kill", "kill"), Choice("k", "Keep training", "back")),
            lambda _: self.session.engine.kill(),
        )

    def action_menu(self) -> None:
        """List all actions on the run."""
        shown = {binding.action: binding for _, binding in self._bindings}
        offered = [shown[name] for name in _MENU if self.check_action(name, ())]
        choices = [Choice(one.key, f"{one.description}: {one.tooltip}", one.action) for one in offered]

        def answered(action: str | None) -> None:
            if action not in (None, BACK.value):
                self.app.call_later(self.run_action, str(action))

        text = "Actions apply between two steps. The line under the metrics shows when."
        self.app.push_screen(ChoiceDialog("Run actions", text, (*choices, BACK), stacked=True), answered)

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
    return "" if 0 < _number(text) <= 1 else "Enter a number between 0 and 1, such as 1e-4."


def _no_steps(text: str) -> str:
    value = _number(text)
    return "" if value >= 1 and value.is_integer() else "Enter a whole number, 1 or more."
