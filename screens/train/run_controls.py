"""The controls of the live run: their keys and dialogs, and what was requested but is not done yet."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

from textual.binding import Binding

from screens.charts.scale import short_number
from screens.dialogs.questions import YES, Choice, ChoiceDialog, LineDialog
from screens.train.sampling_job import follow_sampling
from screens.widgets.key_texts import key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from screens.workbench import Workbench
    from workbench.engine.client.protocol import ControlAction
    from workbench.runs.live_run import LiveRun


def _control(key: str, name: str, label: str, tooltip: str, *, show: bool = True) -> Binding:
    display = key if key.isupper() else None
    return Binding(key, f"control('{name}')", label, show, display, id=f"run.{name}", tooltip=tooltip)


CONTROLS = {
    "resume": _control("g", "resume", "Resume", "Resume the paused run"),
    "pause": _control("p", "pause", "Pause", "Pause; optionally release GPU memory"),
    "stop": _control("s", "stop", "Stop", "Stop and save (resumable)"),
    "checkpoint": _control("k", "checkpoint", "Checkpoint", "Save checkpoint after this step"),
    "evaluate": _control("e", "evaluate", "Evaluate", "Held-out loss and perplexity after this step"),
    "sample": _control("x", "sample", "Sample", "Generate replies to the fixed prompts after this step"),
    "menu": _control("space", "menu", "More", "List all actions on the run"),
    "release": _control("f", "release", "Release GPU memory", "Unload the paused model", show=False),
    "rate": _control("r", "rate", "Learning rate", "Change learning rate", show=False),
    "steps": _control("M", "steps", "Max steps", "Change max steps", show=False),
    "discard": _control("X", "discard", "Discard", "Stop and delete adapter and checkpoints", show=False),
    "kill": _control(
        "K",
        "kill",
        "Force-kill engine",
        "Force-kill an engine that isn't responding; the last checkpoint is kept",
        show=False,
    ),
}
"""The bindings by name, in the order of the footer, which shows the most wanted; the menu and the palette have all."""

_MENU = (
    "resume", "pause", "release", "checkpoint", "evaluate", "sample", "rate", "steps", "stop", "discard", "kill"
)  # fmt: skip

_REQUESTED: dict[ControlAction, str] = {
    "pause": "pause",
    "resume": "resume",
    "checkpoint": "checkpoint",
    "evaluate": "evaluate",
    "sample": "sample replies",
    "stop_sampling": "stop sampling",
    "learning_rate": "peak learning rate",
    "max_steps": "max steps",
}


class RunControls:
    """Actions on the live run.

    The run applies a request between two steps, and its journal says after which; until then :attr:`requested` names
    it. Other terminals read the same journal, so all of them show what any of them requested once it is done.

    Args:
        workbench: the app.
        live: returns the run that is shown.
        changed: called after something was requested.
    """

    def __init__(self, workbench: Workbench, live: Callable[[], LiveRun | None], changed: Callable[[], None]) -> None:
        self._workbench = workbench
        self._live = live
        self._changed = changed
        self._requested = ""
        self._requested_at = -1

    def available(self, name: str) -> bool | None:
        """Return whether a control can be used now, as Textual's ``check_action`` does: None shows it disabled."""
        status = self._workbench.session.status
        if status is None or status.run is None:
            return False
        if name in ("kill", "menu"):
            return True
        if name == "resume":
            return bool(status.paused) and not status.stopping
        if status.stopping:
            return None
        match name:
            case "pause":
                return not status.paused
            case "release":
                return bool(status.paused) and not self._is_released
            case "stop" | "discard":
                return True
        # Nothing can be computed while the model is unloaded.
        return None if self._is_released else True

    @property
    def requested(self) -> str:
        """The last request in a few words until it is done; then an empty string."""
        live = self._live()
        run = live.replay if live is not None else None
        if run is None or run.is_over or (run.last_request is not None and run.last_request.seq > self._requested_at):
            self._requested = ""
        return self._requested

    def forget(self) -> None:
        """Forget the last request: another run is shown."""
        self._requested = ""

    @property
    def _is_released(self) -> bool:
        live = self._live()
        paused = live.replay.paused if live is not None else None
        return paused is not None and paused.release

    def use(self, name: str) -> None:
        """Use a control, one of :data:`CONTROLS`."""
        match name:
            case "resume" | "checkpoint" | "evaluate":
                self._workbench.attempt(self._request(name))
            case "sample":
                self._workbench.attempt(self._sample())
            case "pause":
                self._pause()
            case "release":
                self._workbench.attempt(self._request("pause", release=True))
            case "rate":
                self._change_rate()
            case "steps":
                self._change_steps()
            case "stop":
                self._stop()
            case "discard":
                self._discard()
            case "kill":
                self._kill()
            case "menu":
                self._show_menu()

    # -- requests that apply between two steps --------------------------------------------------------------------

    def _pause(self) -> None:
        self._choose(
            "Pause?",
            f"The run pauses after this step until you press {key('run.resume')} to resume it. Release its GPU "
            "memory to use the GPU for something else meanwhile; resuming then loads the model again.",
            (Choice(YES, "Keep model loaded", "keep"), Choice("f", "Release GPU memory", "release")),
            lambda answer: self._request("pause", release=answer == "release"),
        )

    def _change_rate(self) -> None:
        live = self._live()
        now = live.replay.peak_rate if live else None
        text = "The new peak learning rate, from the next step on. The schedule keeps its shape."
        typed = short_number(now) if now else ""
        self._ask_number("learning_rate", LineDialog("Learning rate", text, typed, "1e-4", _rate_problem))

    def _change_steps(self) -> None:
        live = self._live()
        summary = live.replay.summary if live else None
        text = "Total optimizer steps. The schedule is recomputed for them."
        if summary is not None:
            text += f" With {summary.step} or fewer the run finishes now."
        typed = str(summary.max_steps) if summary else ""
        self._ask_number("max_steps", LineDialog("Max steps", text, typed, "500", _steps_problem))

    def _ask_number(self, action: ControlAction, dialog: LineDialog) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._workbench.attempt(self._request(action, _number(text)))

        self._workbench.push_screen(dialog, answered)

    async def _request(self, action: ControlAction, value: float | None = None, *, release: bool = False) -> None:
        from workbench.engine.client.protocol import ControlRequest

        live = self._live()
        at = live.replay.seq if live else -1
        await self._workbench.session.engine.control(ControlRequest(action=action, value=value, release=release))
        self._requested = _REQUESTED[action] + ("" if value is None else f" {value:g}")
        self._requested_at = at
        self._changed()

    async def _sample(self) -> None:
        await self._request("sample")
        if (live := self._live()) is not None:
            follow_sampling(self._workbench, live, self._requested_at)

    # -- how a run ends -------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._choose(
            "Stop and save?",
            "The run stops within one micro-step and saves its adapter and state. Press "
            f"{key('run.resume')} to resume it later." + self._next_starts,
            (Choice(YES, "Stop and save", "save"), *self._hold),
            lambda answer: self._end(save=True, hold=answer == "hold"),
            no="Keep training",
        )

    def _discard(self) -> None:
        self._choose(
            "Stop and discard?",
            "The run stops within one micro-step. Its adapter and checkpoints are deleted; its curve and log stay in "
            "Runs." + self._next_starts,
            (Choice(YES, "Discard", "discard"), *self._hold),
            lambda answer: self._end(save=False, hold=answer == "hold"),
            no="Keep training",
            is_risky=True,
        )

    @property
    def _next_is_due(self) -> bool:
        status = self._workbench.session.status
        return status is not None and bool(status.queued) and not status.queue_held

    @property
    def _next_starts(self) -> str:
        return " The next queued run then starts." if self._next_is_due else ""

    @property
    def _hold(self) -> tuple[Choice, ...]:
        return (Choice("h", "Also hold the queue", "hold"),) if self._next_is_due else ()

    async def _end(self, *, save: bool, hold: bool) -> None:
        from workbench.engine.client.protocol import StopRequest

        engine = self._workbench.session.engine
        if hold:
            from workbench.planning.queue import QueueRequest

            await engine.change_queue(QueueRequest(action="hold"))
        await engine.stop(StopRequest(save=save))

    def _kill(self) -> None:
        live = self._live()
        checkpoint = live.replay.checkpoint if live else 0
        kept = f"resume from its checkpoint at step {checkpoint}" if checkpoint else "restart: it has no checkpoint yet"
        self._choose(
            "Force-kill the engine?",
            "Force-kills an engine that isn't responding: its process ends at once and frees all its memory. Training "
            f"since the last checkpoint is lost. Press {key('run.resume')} afterwards to {kept}.",
            (Choice(YES, "Force-kill", "kill"),),
            lambda _: self._workbench.session.engine.kill(),
            no="Keep training",
            is_risky=True,
        )

    # -- dialogs --------------------------------------------------------------------------------------------------

    def _show_menu(self) -> None:
        offered = [(name, CONTROLS[name]) for name in _MENU if self.available(name)]
        choices = [Choice(one.key, f"{one.description}: {one.tooltip}", name) for name, one in offered]

        def answered(name: str | None) -> None:
            if name is not None:
                self.use(name)

        text = "Actions apply between two steps. The line under the metrics shows when."
        self._workbench.push_screen(ChoiceDialog("Run actions", text, choices, stacked=True), answered)

    def _choose(
        self,
        title: str,
        text: str,
        choices: tuple[Choice, ...],
        act: Callable[[str], Awaitable[object]],
        *,
        no: str = "Back",
        is_risky: bool = False,
    ) -> None:
        """Ask, and act on the answer unless the user goes back."""

        async def acted(answer: str) -> None:
            await act(answer)

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._workbench.attempt(acted(answer))

        self._workbench.push_screen(ChoiceDialog(title, text, choices, no=no, is_risky=is_risky), answered)


def _number(text: str) -> float:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return nan


def _rate_problem(text: str) -> str:
    return "" if 0 < _number(text) <= 1 else "Enter a number between 0 and 1, such as 1e-4."


def _steps_problem(text: str) -> str:
    value = _number(text)
    return "" if value >= 1 and value.is_integer() else "Enter a whole number, 1 or more."
