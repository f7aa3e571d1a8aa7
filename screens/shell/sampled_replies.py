"""The replies to a run's fixed prompts, step by step: how the model changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content

from screens.widgets.box_screen import BoxScreen
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain_content

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from workbench.runs.events import Sample
    from workbench.runs.live_run import LiveRun

_SECONDS = 1.0


class RepliesScreen(BoxScreen[None]):
    """One prompt at a time with all its replies, the newest first; new samples of a live run are added."""

    DEFAULT_CSS = """
    RepliesScreen > VerticalScroll { width: 96; height: auto; scrollbar-size-vertical: 1; }
    RepliesScreen Paragraph { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,v,q,enter", "dismiss", "Close", id="replies.close"),
        Binding("right,n", "turn(1)", "Next prompt", id="replies.next"),
        Binding("left,p", "turn(-1)", "Previous prompt", id="replies.previous"),
    ]

    def __init__(self, run: LiveRun) -> None:
        super().__init__()
        self._run = run
        self._prompt = 0
        self._replies = Paragraph()
        self._box = VerticalScroll(self._replies)

    def compose(self) -> ComposeResult:
        yield self._box

    def on_mount(self) -> None:
        self._box.border_subtitle = "← → switch prompt   Esc close"
        self._show()
        self.set_interval(_SECONDS, self._show)

    def action_turn(self, by: int) -> None:
        """Show the next or the previous prompt."""
        self._prompt = (self._prompt + by) % max(len(self._prompts), 1)
        self._box.scroll_home(animate=False)
        self._show()

    @property
    def _prompts(self) -> list[str]:
        """The fixed prompts, which are the same in every sample of a run."""
        return list(dict.fromkeys(prompt for sample in self._run.replay.samples for prompt, _ in _pairs(sample)))

    def _show(self) -> None:
        prompts = self._prompts
        if not prompts:
            return
        prompt = prompts[min(self._prompt, len(prompts) - 1)]
        set_title(self._box, f"prompt {self._prompt + 1} of {len(prompts)}")
        lines: list[Content] = [plain_content(prompt.strip(), "$text-muted", lines=True)]
        for sample in reversed(self._run.replay.samples):
            for asked, reply in _pairs(sample):
                if asked == prompt:
                    step = Content.styled(f"\nstep {sample.step}", "bold $accent")
                    lines += [step, plain_content(reply.strip() or "(nothing)", lines=True)]
        self._replies.show(Content("\n").join(lines))


def _pairs(sample: Sample) -> list[tuple[str, str]]:
    return [(str(one.get("prompt", "")), str(one.get("reply", ""))) for one in sample.replies]
