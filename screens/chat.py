"""Chat: ask what was trained, and the base it came from, with the weights that the engine holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Label

from screens.messages import RecipeChanged, RunSelected
from screens.widgets.glyphs import GLYPHS
from screens.widgets.header import short_name
from screens.widgets.pane import beside
from screens.widgets.phase_bar import PhaseBar
from screens.widgets.pick import PickDialog
from screens.widgets.plain import plain, plain_content
from screens.widgets.quiet import QuietPane, Words
from screens.widgets.transcript import Reply, Transcript
from workbench.engine.protocol import Message, Progress, ReplyPiece, ReplyRequest, Sampling
from workbench.errors import WorkbenchError
from workbench.runs.folder import all_runs

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from workbench.paths import Home

_RUNS_OFFERED = 100
_WHY = {"length": "cut at the limit of tokens", "cancelled": "stopped"}


class Prompt(Input):
    """The line to write in. While it has the focus letters are text, so its keys are others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Send", id="prompt.send", tooltip="Send what stands in the line"),
        Binding("ctrl+t", "switch", "Base/tuned", id="prompt.switch", tooltip="Adapter off and on"),
        Binding("pageup", "scroll(-1)", "Scroll", show=False, id="prompt.up"),
        Binding("pagedown", "scroll(1)", "Scroll", show=False, id="prompt.down"),
    ]

    def action_switch(self) -> None:
        self._pane.action_switch()

    def action_scroll(self, pages: int) -> None:
        self._pane.query_one(Transcript).scroll_relative(y=pages * self._pane.query_one(Transcript).size.height)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._pane.check_action(action, parameters) if action == "switch" else True

    @property
    def _pane(self) -> ChatPane:
        return next(node for node in self.ancestors if isinstance(node, ChatPane))


class ChatPane(QuietPane):
    """A conversation with a run's adapter or with the base under it."""

    NAME = "Chat"
    GUIDE = (
        "Enter opens the line to write in, and sends what stands in it. The newest run that finished answers, unless m "
        "picks another one; b switches its adapter off and on, so that the same weights answer with and without what "
        "was trained. Escape ends a reply that has said enough. o opens system prompt, temperature, top-p and length."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "write", "Write", id="chat.write", tooltip="Open the line to write in; Enter there sends it"),
        Binding("escape", "stop", "Stop reply", id="chat.stop", tooltip="End the reply that is being written"),
        Binding("b", "switch", "Base/tuned", id="chat.switch", tooltip="Adapter off and on"),
        Binding("m", "pick", "Who", id="chat.pick", tooltip="Choose the run or the base model that answers"),
        Binding("o", "settings", "Settings", id="chat.settings", tooltip="System prompt and sampling"),
        Binding("x", "clear", "Clear", id="chat.clear", tooltip="Begin a new conversation"),
        Binding("y", "copy", "Copy", id="chat.copy", tooltip="Copy the last reply to the clipboard of this terminal"),
    ]

    def __init__(self, **names: str) -> None:
        super().__init__(**names)
        self._target: str | None = None
        self._picked = False
        self._adapter = True
        self._messages: list[Message] = []
        self._replying = False
        self._sampling = Sampling.model_validate({})

    def compose(self) -> ComposeResult:
        yield Words(id="target")
        with Vertical(id="body"):
            with Vertical(id="talk"):
                yield Words(id="guide")
                yield Transcript()
                yield PhaseBar()
            with VerticalScroll(id="settings", can_focus=False):
                for name, label in _SETTINGS:
                    yield Label(label)
                    yield Input(_start(self._sampling, name), id=name, compact=True)
                yield Words(id="mistake")
        yield Prompt(id="prompt", placeholder="Write, Enter sends")

    def on_mount(self) -> None:
        self.query_one("#settings").border_title = "settings"
        self.set_class(True, "-silent")

    def on_resize(self, event: events.Resize) -> None:
        narrow = event.size.width < 100
        if narrow != self.has_class("-narrow") or not self.has_class("-sized"):
            self.set_class(narrow, "-narrow").set_class(not narrow, "-settings").add_class("-sized")

    # -- what the app tells ---------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self.run_worker(self._choose_target(), group="target", exclusive=True)

    @on(RunSelected)
    def _run_selected(self, message: RunSelected) -> None:
        self._take_target(message.run)

    @on(RecipeChanged)
    def _recipe_changed(self) -> None:
        self.on_shown()

    async def _choose_target(self) -> None:
        """Without a choice the newest adapter answers, and where there is none, the recipe's base model."""
        if self._picked:
            self._show_target()
            return
        runs = await asyncio.to_thread(_runs_with_adapters, self.session.home)
        self._target = runs[0] if runs else None
        if self.is_attached:
            self._show_target()

    def _take_target(self, target: str | None) -> None:
        self._target, self._picked, self._adapter = target, True, True
        self._show_target()

    # -- what the user does ---------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "stop":
                return self._replying
            case "switch":
                return None if self._target is None else True
            case "copy":
                return any(message.role == "assistant" for message in self._messages)
            case "clear":
                return bool(self._messages) and not self._replying
        return True

    def action_write(self) -> None:
        """Open the line to write in."""
        self.query_one("#prompt", Input).focus()

    def action_stop(self) -> None:
        """End the reply that is being written."""
        self.workbench.attempt(self.session.engine.cancel())

    def action_switch(self) -> None:
        """Adapter off and on."""
        self._adapter = not self._adapter
        self._show_target()

    async def action_pick(self) -> None:
        """Choose who answers."""
        runs = await asyncio.to_thread(_runs_with_adapters, self.session.home)
        base = self.session.recipe.model.source
        choices = [(run, run) for run in runs[:_RUNS_OFFERED]]
        choices.append(("", f"{short_name(base)}, the base model alone"))

        def picked(answer: str | None) -> None:
            if answer is not None:
                self._take_target(answer or None)

        self.app.push_screen(PickDialog("Who answers?", choices, self._target or ""), picked)

    def action_settings(self) -> None:
        """Show or hide system prompt and sampling."""
        self.toggle_class("-settings")

    async def action_clear(self) -> None:
        """Begin a new conversation."""
        self._messages.clear()
        await self.query_one(Transcript).clear()
        self.set_class(True, "-silent")
        self._show_target()

    def action_copy(self) -> None:
        """Copy the last reply."""
        last = next(message for message in reversed(self._messages) if message.role == "assistant")
        self.app.copy_to_clipboard(plain(last.content, lines=True))
        self.notify("Copied.", timeout=2)

    @on(Input.Changed, "#settings Input")
    def _setting_typed(self) -> None:
        given = {name: self.query_one(f"#{name}", Input).value.strip() for name, _ in _SETTINGS}
        mistake = ""
        try:
            self._sampling = Sampling.model_validate({name: given[name] for name in _NUMBERS})
        except ValueError:
            mistake = "Temperature is 0 to 5, top-p above 0 and at most 1, the reply 1 to 32768 tokens."
        self.query_one("#mistake", Words).show(plain_content(mistake))

    @on(Input.Submitted, "#prompt")
    def _send(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if text and not self._replying:
            event.input.clear()
            self.run_worker(self._converse(text))

    # -- a turn of the conversation -------------------------------------------------------------------------------

    async def _converse(self, text: str) -> None:
        transcript = self.query_one(Transcript)
        self.set_class(False, "-silent")
        await transcript.ask(text)
        self._replying = True
        self.refresh_bindings()
        try:
            reply, figures = await self._receive(self._request(text), transcript)
        except WorkbenchError as error:
            # What was asked is given back, so that it can be sent again.
            await transcript.problem(str(error))
            prompt = self.query_one("#prompt", Input)
            prompt.value = prompt.value or text
        else:
            self._messages += [Message(role="user", content=text), Message(role="assistant", content=reply)]
            await transcript.figures(figures)
        finally:
            self._replying = False
            if self.is_attached:  # not while the app closes
                self.set_class(False, "-loading")
                self.refresh_bindings()

    def _request(self, text: str) -> ReplyRequest:
        system = self.query_one("#system", Input).value.strip()
        return ReplyRequest(
            target=self._target or self.session.recipe.model.source,
            messages=[
                *([Message(role="system", content=system)] if system else []),
                *self._messages,
                Message(role="user", content=text),
            ],
            adapter=self._adapter and self._target is not None,
            sampling=self._sampling,
        )

    async def _receive(self, request: ReplyRequest, transcript: Transcript) -> tuple[str, str]:
        """Write the reply down as it comes; returns it, and its figures in words."""
        reply: Reply | None = None
        figures = "the reply broke off"
        try:
            await self.workbench.start_engine()
            async for piece in self.session.engine.reply(request):
                self.set_class(isinstance(piece, Progress), "-loading")
                if isinstance(piece, Progress):
                    self.query_one(PhaseBar).show(piece.phase, piece.fraction, piece.detail)
                    continue
                if piece.text:
                    reply = reply or await transcript.answer(self._who(request))
                    await reply.write(piece.text)
                if piece.done:
                    figures = _figures(piece)
        finally:
            if reply is not None and reply.is_attached:
                await reply.close()
        return reply.text if reply is not None else "", figures

    # -- what is shown --------------------------------------------------------------------------------------------

    def _who(self, request: ReplyRequest) -> str:
        if self._target is None:
            return f"{short_name(request.target)} (base)"
        return f"{short_name(request.target)} ({'tuned' if request.adapter else 'base, adapter off'})"

    def _show_target(self) -> None:
        on_off = "tuned" if self._adapter else "base"
        mark = GLYPHS.on if self._adapter else GLYPHS.off
        state = Content.assemble((f"  {mark} {on_off}", "$success" if self._adapter else "$warning"))
        name = short_name(self._target or self.session.recipe.model.source)
        self.query_one("#target", Words).show(
            Content.assemble(
                ("talking to ", "$foreground 70%"),
                (plain(name), "bold"),
                *([state] if self._target else [("  base model, no adapter", "$foreground 70%")]),
            )
        )
        self.query_one("#guide", Words).show(_guide(plain(name), self._target is not None))
        self.refresh_bindings()


_NUMBERS = ("temperature", "top_p", "max_new_tokens")
_SETTINGS = (
    ("system", "system prompt (empty: none)"),
    ("temperature", "temperature (0: likeliest token)"),
    ("top_p", "top-p"),
    ("max_new_tokens", "tokens at most"),
)


def _start(sampling: Sampling, name: str) -> str:
    return f"{getattr(sampling, name):g}" if name in _NUMBERS else ""


def _runs_with_adapters(home: Home) -> list[str]:
    """Ids of the runs that kept an adapter, newest first."""
    return [run.id for run in all_runs(home) if (run.adapter / "adapter_config.json").is_file()]


def _guide(name: str, tuned: bool) -> Content:
    first = f"{name} is ready to be asked." if tuned else f"No run has kept an adapter yet: {name} answers as it is."
    return Content.assemble(
        (f"{first} ", "bold"),
        ("Press Enter", "bold $accent"),
        (" and write.\n\n", ""),
        ("b switches the adapter off and on, so that you hear the base beside what you trained.", "$foreground 70%")
        if tuned
        else ("5 opens Train, where Enter fine-tunes it.", "$foreground 70%"),
    )


def _figures(piece: ReplyPiece) -> str:
    parts = [f"{piece.tokens} tokens"]
    if piece.tokens_per_second:
        parts.append(f"{piece.tokens_per_second:.1f} tok/s")
    parts.append(f"first after {piece.first_token_seconds:.2f} s")
    if piece.reason in _WHY:
        parts.append(_WHY[piece.reason])
    return f" {GLYPHS.separator} ".join(parts)
