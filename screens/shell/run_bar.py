"""The line above the footer while a run is live: ``run pirate-03 ▕██████▏ step 212/600 · loss 0.412 ↓ · …``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from screens.run_names import titled
from screens.widgets.glyphs import GLYPHS, bar
from screens.widgets.plain import plain
from screens.widgets.sizes import NARROW_BELOW
from screens.widgets.throttle import Throttle
from workbench.units import clock, loss_text, short

if TYPE_CHECKING:
    from screens.session import Session
    from workbench.progress import Progress
    from workbench.runs.summary import RunSummary

_BAR_WIDTH, _NARROW_BAR_WIDTH = 16, 8
_NAME_WIDTH, _NARROW_NAME_WIDTH = 36, 20


def waiting_words(count: int, held: str) -> str:
    """``3 queued``, or ``3 queued (on hold)``; empty if no run is queued."""
    if not count:
        return ""
    return f"{count} queued{' (on hold)' if held else ''}"


class RunBar(Widget):
    """The progress of the live run. A click opens the Train tab."""

    text: reactive[Content] = reactive(Content(""))

    def __init__(self) -> None:
        super().__init__()
        self._newest = Content("")
        # Each repaint sends the whole line, and a fast run has a new step at each reading.
        self._repaints = Throttle(self, self._take_newest, times_a_second=1)

    def show_live(self, session: Session) -> None:
        """Show the live run of a session, or nothing if there is none."""
        status, summary = session.status, session.summary
        if status is None or status.run is None or summary is None:
            self.remove_class("-live")
        else:
            self.add_class("-live")
            waiting = waiting_words(status.queued, status.queue_held)
            self.show(summary, status.progress, waiting, session.names.of(summary.id), is_paused=bool(status.paused))

    def show(
        self,
        summary: RunSummary,
        progress: Progress | None,
        waiting: str = "",
        name: str = "",
        *,
        is_paused: bool = False,
    ) -> None:
        """Show the figures of the journal, and before the first step the progress that the engine reports.

        Args:
            summary: of the live run; its phase is shown, as on Train.
            progress: of what the engine is doing.
            waiting: the queue in words.
            name: the run's name.
            is_paused: whether it is paused; an evaluation during the pause is shown instead.
        """
        is_wide = self.app.size.width >= NARROW_BELOW
        separator = f" {GLYPHS.separator} "
        if progress is not None and summary.phase not in ("", progress.phase):
            progress = None  # it is of another moment than the journal
        fraction = summary.step / summary.max_steps if summary.max_steps else progress and progress.fraction
        # Between two steps: an evaluation, or what comes after the last step.
        between = summary.phase if summary.phase != "training" else "paused" if is_paused else ""
        if summary.step:
            facts = [between] if between else []
            facts.append(f"step {summary.step}/{summary.max_steps}" if summary.max_steps else f"step {summary.step}")
            if summary.loss is not None:
                facts.append(
                    f"loss {loss_text(summary.loss) if isinstance(summary.loss, int | float) else summary.loss}"
                )
            if not between:
                # On a narrow terminal a long name needs the room; Train shows the speed, too.
                if summary.tokens_per_second and (is_wide or len(name) <= len(summary.id)):
                    facts.append(f"{short(summary.tokens_per_second)} tok/s")
                facts.append(f"ETA {clock(summary.eta_seconds)}")
        else:
            facts = [part for part in (progress.phase, progress.detail) if part] if progress else [summary.phase]
            if progress and progress.eta_seconds:
                facts.append(f"ETA {clock(progress.eta_seconds)}")
        if waiting:
            facts.append(waiting)
        width, most = (_BAR_WIDTH, _NAME_WIDTH) if is_wide else (_NARROW_BAR_WIDTH, _NARROW_NAME_WIDTH)
        self._newest = Content.assemble(
            ("run ", "$muted"),
            titled(name or summary.id, summary.id, most=most),
            (f" {GLYPHS.left}", "$muted"),
            (bar(fraction or 0.0, width), "$accent on $panel"),
            (f"{GLYPHS.right} ", "$muted"),
            (plain(separator.join(facts)), ""),
        )
        self._repaints.call_soon()

    def _take_newest(self) -> None:
        self.text = self._newest

    def render(self) -> Content:
        return self.text

    async def on_click(self) -> None:
        await self.run_action("app.show_tab('train')")
