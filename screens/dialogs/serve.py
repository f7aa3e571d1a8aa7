"""Serves a model over an OpenAI-compatible API as a job, and shows its address, requests and speed."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content

from screens.shell.phase_bar import PhaseBar
from screens.shell.shown_job import ShownJob
from screens.widgets.box_screen import BoxScreen
from screens.widgets.glyphs import ENTER
from screens.widgets.paragraph import Paragraph, set_title
from screens.widgets.plain import plain, plain_content
from workbench.progress import Progress
from workbench.serving import background
from workbench.serving.background import ServerFigures
from workbench.serving.ssh_line import ssh_line

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.shell.jobs import Job
    from screens.workbench import Workbench


class ServeScreen(BoxScreen[None]):
    """A server of one run, checkpoint, adapter folder or base model.

    Args:
        app: the app.
        target: as ``loraworkbench serve`` takes it.
        title: the target's name for the user.
    """

    NAME: ClassVar[str] = "Serve"
    GUIDE: ClassVar[str] = (
        "Serves the model and its base to other programs over an OpenAI-compatible API, on this machine only and with "
        "a token. Enter starts it; it runs in the background until x stops it or the app closes. y copies the address, "
        "k the API key, c a curl command, s the ssh command that makes the address reachable from your own machine."
    )
    DEFAULT_CSS = """
    ServeScreen > VerticalGroup { width: 90; }
    ServeScreen Paragraph { height: auto; margin-bottom: 1; }
    ServeScreen PhaseBar { display: none; margin-bottom: 1; }
    ServeScreen.-busy PhaseBar { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Serve", id="serve.start", tooltip="Start the server"),
        Binding("y", "copy('url')", "Copy address", id="serve.copy", tooltip="Copy the base URL"),
        Binding("k", "copy('key')", "Copy key", id="serve.copy_key", tooltip="Copy the API key"),
        Binding("c", "copy('curl')", "Copy curl", id="serve.copy_curl", tooltip="Copy a curl command"),
        Binding("s", "copy('ssh')", "Copy ssh", id="serve.copy_ssh", tooltip="Copy the ssh command for your machine"),
        Binding("x", "stop", "Stop", id="serve.stop", tooltip="Stop the server"),
        Binding("escape,q", "leave", "Back", id="serve.leave", tooltip="Close; the server continues"),
    ]

    def __init__(self, app: Workbench, target: str, title: str) -> None:
        super().__init__()
        self._workbench = app
        self._target = target
        self._title = title
        self._key = ("serve", target)
        self._ended_as: str | None = None
        self._intent = Paragraph(id="intent")
        self._progress = PhaseBar()
        self._shown_job = ShownJob(lambda: app.jobs, self._key, self._progress, self._ended, self._show)
        self._address = Paragraph(id="address")
        self._figures = Paragraph(id="figures")

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            set_title(box, f"Serve {self._title}")
            yield self._intent
            yield self._progress
            yield self._address
            yield self._figures

    def on_mount(self) -> None:
        self._progress.show("loading")
        if (job := self._workbench.jobs.get(self._key)) is not None:
            self._shown_job.follow(job)
        else:
            self._show()

    # -- the job --------------------------------------------------------------------------------------------------

    def _ended(self, job: Job) -> None:
        self._ended_as = job.outcome
        self._show()
        if job.error is not None:
            self._workbench.show_error(job.error)

    def on_unmount(self) -> None:
        self._shown_job.leave()

    @property
    def _served(self) -> ServerFigures | None:
        """What the running server has told; None while none runs."""
        subject = self._shown_job.subject
        return subject if isinstance(subject, ServerFigures) else None

    # -- what is shown --------------------------------------------------------------------------------------------

    def _show(self) -> None:
        served = self._served
        listening = served.listening if served is not None else None
        self.set_class(served is not None and listening is None, "-busy")
        if served is None:
            how = self._ended_as
            ended = "" if how is None else f"The server has stopped: {how.rstrip('.') or 'as requested'}. "
            text = f"{ENTER} serves {plain(self._title)} and its base on this machine, with a token."
            more = "The base is loaded once more, beside the one in the engine."
            self._intent.show(plain_content(f"{ended}{text} {more}"))
        else:
            words = "Esc leaves it in the background   x stop" if listening else "Loading. x stop"
            self._intent.show(plain_content(words, "$text-muted"))
        self._address.show_or_hide(
            Content("")
            if listening is None
            else Content("\n").join(
                Content.assemble((f"{name:<14}", "$text-muted"), plain(value))
                for name, value in (
                    ("address  y", listening.url),
                    ("API key  k", listening.token),
                    ("models", ", ".join(listening.models)),
                    ("curl     c", listening.curl),
                    ("ssh      s", ssh_line(listening.port)),
                )
            )
        )
        self._figures.show_or_hide(Content("") if listening is None or served is None else Content(_words(served)))
        self.refresh_bindings()

    # -- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        served = self._served
        match action:
            case "start":
                return served is None
            case "stop":
                return served is not None
            case "copy":
                return served is not None and served.listening is not None
        return True

    def action_start(self) -> None:
        """Start the server; the command refuses to serve beside a live run."""
        app, target, title, figures = self._workbench, self._target, self._title, ServerFigures()
        self._shown_job.follow(
            app.jobs.start(
                self._key,
                f"server of {title}",
                partial(_serve, app, target, figures),
                open_result=lambda: app.push_screen(ServeScreen(app, target, title)),
                describe=str,
                subject=figures,
            )
        )

    def action_copy(self, what: str) -> None:
        """Copy the address, the key or a command."""
        served = self._served
        if served is None or (listening := served.listening) is None:
            return
        text = {
            "url": listening.url,
            "key": listening.token,
            "curl": listening.curl,
            "ssh": ssh_line(listening.port),
        }[what]
        self.app.copy_to_clipboard(text)
        self._workbench.notify("Copied.", timeout=2)

    def action_stop(self) -> None:
        """Stop the server."""
        self._shown_job.stop()

    def action_leave(self) -> None:
        """Close the screen; the server continues."""
        self.dismiss(None)


async def _serve(app: Workbench, target: str, figures: ServerFigures, job: Job) -> str:
    async with aclosing(background.serve_in_background(app.session.home, target)) as news:
        async for one in news:
            figures.take(one)
            url = figures.listening.url if figures.listening is not None else ""
            job.report(Progress(phase=f"serving, {figures.words}", detail=url))
    return figures.words


def _words(figures: ServerFigures) -> str:
    newest = figures.newest
    if newest is None:
        return "No requests yet."
    last = f"last: {newest.model}, {newest.tokens} tokens in {newest.seconds:.1f} s, {newest.reason}"
    return f"{figures.words}. {figures.running} running. {plain(last)}"
