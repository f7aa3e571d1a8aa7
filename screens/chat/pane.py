"""Chat: ask what was trained, and the base it came from, with the weights that the engine holds."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical
from textual.content import Content
from textual.widgets import Input

from screens.chat.prompt import Prompt
from screens.chat.reply_targets import ReplyTargets
from screens.chat.settings import ChatSettings
from screens.chat.targets import ReplyTarget
from screens.chat.transcript import Column, Transcript
from screens.run_names import titled
from screens.shell.phase_bar import PhaseBar
from screens.widgets.glyphs import GLYPHS
from screens.widgets.line_painted import Words
from screens.widgets.pane import beside
from screens.widgets.plain import plain
from workbench.engine.client.conversations import Chats, Conversation, Said, Turn, new_conversation
from workbench.engine.client.protocol import Message, ReplyPiece, ReplyRequest, new_request_id
from workbench.errors import WorkbenchError
from workbench.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

_WHY = {"length": "cut at max new tokens", "cancelled": "stopped"}
_TURNS_SHOWN = 40
# Cells of the heading that are for other things than who answers.
_AROUND_NAME = 40


class ChatPane(ReplyTargets):
    """Conversations with a run's adapter, with the base under it, or with several of them side by side."""

    NAME = "Chat"
    GUIDE = (
        "Enter opens the prompt and sends it. You chat with the newest finished run unless you "
        "choose another model with m; a paused run replies with its current weights. b switches "
        "the adapter off and on, n and p go to the next and previous adapter on the same base, + "
        "and - scale the adapter, w combines several; the base stays in memory. s shows base and "
        "tuned side by side at the same seed, c chooses up to three others. Esc stops a reply; e "
        "edits your last question, r regenerates the reply. Conversations are saved with the "
        "run: l lists them. o opens system prompt and sampling."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "write", "Write", id="chat.write", tooltip="Open the prompt; Enter sends it"),
        Binding("escape", "stop", "Stop reply", id="chat.stop", tooltip="Stop the reply being generated"),
        Binding(
            "s", "beside", "Side by side", id="chat.beside", tooltip="Show base and tuned side by side, or one again"
        ),
        Binding("b", "switch", "Base/tuned", id="chat.switch", tooltip="Switch the adapter off or on"),
        Binding("m", "pick", "Model", id="chat.pick", tooltip="Choose the run, checkpoint or base model to chat with"),
        Binding("o", "settings", "Settings", id="chat.settings", tooltip="Set system prompt and sampling"),
        Binding("l", "conversations", "Chats", id="chat.list", tooltip="List conversations: open, rename, remove"),
        Binding("e", "edit", "Edit", id="chat.edit", tooltip="Edit your last question and send it again"),
        Binding("r", "again", "Regenerate", id="chat.again", tooltip="Regenerate the last reply"),
        Binding("x", "clear", "New", id="chat.clear", tooltip="Start a new conversation; this one is saved"),
        Binding("y", "copy", "Copy", id="chat.copy", tooltip="Copy the last reply to the clipboard"),
        Binding("Y", "copy_all", "Copy all", show=False, id="chat.copy_all", tooltip="Copy the conversation"),
        Binding(
            "c", "columns", "Columns", show=False, id="chat.columns", tooltip="Choose what to compare side by side"
        ),
        Binding("n", "cycle(1)", "Next", show=False, id="chat.next", tooltip="Next adapter on the same base"),
        Binding(
            "p", "cycle(-1)", "Previous", show=False, id="chat.previous", tooltip="Previous adapter on the same base"
        ),
        Binding(
            "plus,equals_sign",
            "scale(1)",
            "More",
            show=False,
            id="chat.more",
            tooltip="Increase the adapter scale (up to 2)",
        ),
        Binding(
            "minus", "scale(-1)", "Less", show=False, id="chat.less", tooltip="Decrease the adapter scale (down to 0)"
        ),
        Binding("w", "weigh", "Combine", show=False, id="chat.weigh", tooltip="Combine adapters, each with a weight"),
        Binding("g", "greedy", "Greedy", show=False, id="chat.greedy", tooltip="Greedy decoding on or off"),
    ]

    def __init__(self, **names: str) -> None:
        super().__init__(**names)
        self._chats: Chats | None = None
        self._conversation = new_conversation()
        self._editing: int | None = None
        self._replying = False
        self._stopped = False
        self._request_id = ""
        self._fullness = ""
        self._left_out = 0

    def compose(self) -> ComposeResult:
        with HorizontalGroup(id="heading"):
            yield Words(id="target")
            yield Words(id="context")
        with Vertical(id="body"):
            with Vertical(id="talk"):
                yield Words(id="guide")
                yield Transcript()
                yield PhaseBar()
            yield ChatSettings(id="settings")
        yield Prompt(id="prompt", placeholder="Type a message, Enter to send")

    def on_mount(self) -> None:
        self.set_class(True, "-silent")

    def on_resize(self, event: events.Resize) -> None:
        narrow = event.size.width < 100
        if narrow != self.has_class("-narrow") or not self.has_class("-sized"):
            self.set_class(narrow, "-narrow").set_class(not narrow and not self.beside, "-settings")
            self.add_class("-sized")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        has_turns = bool(self._conversation.turns)
        match action:
            case "stop":
                return self._replying
            case "switch":
                return None if self.one.bare or self.beside else True
            case "beside" | "scale":
                return not self.one.bare or bool(self.beside)
            case "edit" | "again" | "clear":
                return has_turns and not self._replying
            case "copy" | "copy_all":
                return has_turns
            case "conversations" | "weigh" | "columns" | "cycle" | "pick":
                return not self._replying
        return True

    # -- the conversation -----------------------------------------------------------------------------------------

    def _targets(self) -> tuple[ReplyTarget, ...]:
        return self.beside or (replace(self.one, merged=self._settings.merged),)

    @property
    def _settings(self) -> ChatSettings:
        return self.query_one(ChatSettings)

    @property
    def _prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def action_write(self) -> None:
        """Open the line to write in."""
        self._prompt.focus()

    def action_stop(self) -> None:
        """Stop the reply being generated, and those that were to follow beside it."""
        self._stopped = True
        self.workbench.attempt(self.session.engine.cancel(self._request_id))

    def action_settings(self) -> None:
        """Show or hide system prompt and sampling."""
        self.toggle_class("-settings")

    def action_greedy(self) -> None:
        """Take the likeliest token always, or draw again."""
        self._settings.toggle_greedy()
        self.notify("Greedy." if self._settings.query_one("#temperature", Input).value == "0" else "Drawn.", timeout=2)

    def action_edit(self) -> None:
        """Take the last question back into the line; again: the one before it."""
        last = len(self._conversation.turns) if self._editing is None else self._editing
        self._edit(max(last - 1, 0))

    def leave_edit(self) -> None:
        """Write a new question instead."""
        self._edit(None)

    @property
    def edits(self) -> bool:
        """Whether the line holds an earlier question."""
        return self._editing is not None

    def _edit(self, turn: int | None) -> None:
        self._editing = turn
        self._prompt.text = "" if turn is None else self._conversation.turns[turn].question
        self._prompt.border_title = "" if turn is None else f"editing question {turn + 1}: later turns are dropped"
        if turn is not None:
            self._prompt.focus()

    def action_again(self) -> None:
        """Regenerate the last reply."""
        last = len(self._conversation.turns) - 1
        self.run_worker(self._converse(self._conversation.turns[last].question, last))

    async def action_clear(self) -> None:
        """Begin a new conversation."""
        await self._open(new_conversation(), None)

    async def _open(self, conversation: Conversation, chats: Chats | None) -> None:
        self._edit(None)
        self._conversation, self._chats = conversation, chats
        self._fullness, self._left_out = "", 0
        transcript = self.query_one(Transcript)
        await transcript.clear()
        self.set_class(not conversation.turns, "-silent")
        hidden = len(conversation.turns) - _TURNS_SHOWN
        if hidden > 0:
            await transcript.notice(f"{hidden} earlier turns are not shown.")
        for turn in conversation.turns[max(hidden, 0) :]:
            view = await transcript.ask(turn.question, [reply.who for reply in turn.replies])
            for column, reply in zip(view.columns, turn.replies, strict=True):
                await column.write(reply.text)
                await column.close()
                await column.figures(reply.figures)
        self.show_target()

    def action_copy(self) -> None:
        """Copy the last reply; of several side by side all, each under its name."""
        replies = self._conversation.turns[-1].replies
        several = len(replies) > 1
        self._to_clipboard("\n\n".join(f"{reply.who}:\n{reply.text}" if several else reply.text for reply in replies))

    def action_copy_all(self) -> None:
        """Copy the conversation as Markdown."""
        self._to_clipboard(self._conversation.as_markdown())

    def _to_clipboard(self, text: str) -> None:
        self.app.copy_to_clipboard(plain(text, lines=True))
        self.notify("Copied.", timeout=2)

    @on(Input.Submitted, "#prompt")
    def _send(self) -> None:
        text, turn = self._prompt.text, self._editing
        if self._replying:
            return
        self._edit(None)
        if text:
            self.run_worker(self._converse(text, turn))

    # -- conversations on disk ------------------------------------------------------------------------------------

    async def action_conversations(self) -> None:
        """Open, rename or remove a conversation with the one that answers."""
        from screens.chat.dialogs import ConversationsDialog

        chats = await asyncio.to_thread(Chats.of, self.session.home, self.one.target)
        found = await asyncio.to_thread(chats.all)
        if not found:
            self.notify("No messages yet.", timeout=3)
            return
        by_id = {conversation.id: conversation for conversation in found}

        def chosen(answer: tuple[str, str] | None) -> None:
            if answer is not None:
                self.workbench.attempt(self._do(answer[0], chats, by_id[answer[1]]))

        self.app.push_screen(ConversationsDialog(found, self._conversation.id), chosen)

    async def _do(self, what: str, chats: Chats, conversation: Conversation) -> None:
        from screens.chat.dialogs import OPEN, RENAME
        from screens.shell.dialogs import Choice, ChoiceDialog, LineDialog

        if what == OPEN:
            self._settings.system = plain(conversation.system)
            await self._open(conversation, chats)
        elif what == RENAME:
            name = await self.app.push_screen_wait(
                LineDialog("Rename", "Name of the conversation", plain(conversation.name))
            )
            if name is not None:
                renamed = await asyncio.to_thread(chats.save, conversation.model_copy(update={"title": name.strip()}))
                if renamed.id == self._conversation.id:
                    self._conversation = self._conversation.model_copy(update={"title": renamed.title})
                await self.action_conversations()
        else:
            choices = (Choice("r", "Remove", "yes"), Choice("k", "Keep", "no"))
            question = ChoiceDialog("Remove?", f"{conversation.name}\n\nThis cannot be undone.", choices)
            if await self.app.push_screen_wait(question) == "yes":
                await asyncio.to_thread(chats.remove, conversation)
                if conversation.id == self._conversation.id:
                    await self.action_clear()

    async def _keep(self) -> None:
        """Save the conversation; if that fails, the chat continues."""
        if self._chats is None:
            self._chats = await asyncio.to_thread(Chats.of, self.session.home, self.one.target)
        try:
            self._conversation = await asyncio.to_thread(self._chats.save, self._conversation)
        except WorkbenchError as error:
            self.notify(str(error), severity="warning", markup=False)

    # -- a turn of the conversation -------------------------------------------------------------------------------

    async def _converse(self, text: str, turn: int | None = None) -> None:
        """Ask a question: a new one, or another one in the place of a turn and all that followed it."""
        transcript, before = self.query_one(Transcript), self._conversation
        kept = before.turns if turn is None else before.turns[:turn]
        self._replying, self._stopped = True, False
        self.refresh_bindings()
        try:
            self.set_class(False, "-silent")
            if turn is not None:
                await transcript.keep(turn - max(len(before.turns) - _TURNS_SHOWN, 0))
            self._conversation = before.model_copy(update={"turns": kept, "system": self._settings.system})
            targets = self._targets()
            view = await transcript.ask(text, [target.who for target in targets])
            replies, problems = await self._ask_all(text, targets, view.columns)
            if replies:
                asked = Turn(question=text, replies=tuple(replies))
                self._conversation = self._conversation.model_copy(update={"turns": (*kept, asked)})
                await self._keep()
            else:
                # What was asked is given back, so that it can be sent again.
                view.failed, self._conversation = True, before
                if turn is not None:
                    await self._open(before, self._chats)
                    await transcript.notice(" ".join(problems), error=True)
                self._prompt.text = self._prompt.text or text
        finally:
            self._replying = False
            if self.is_attached:  # not while the app closes
                self.set_class(False, "-loading")
                self.show_target()

    async def _ask_all(
        self, text: str, targets: Sequence[ReplyTarget], columns: Sequence[Column]
    ) -> tuple[list[Said], list[str]]:
        """Have each answer in turn: they share one model. Several draw with one seed. Returns what went wrong, too."""
        sampling, seed = self._settings.sampling, ""
        if len(targets) > 1 and sampling.temperature > 0:
            sampling = sampling.model_copy(
                update={"seed": secrets.randbelow(10**6) if sampling.seed is None else sampling.seed}
            )
            seed = f" {GLYPHS.separator} seed\u00a0{sampling.seed}"
        on = self.under if len(targets) > 1 or not targets[0].bare else ""
        replies: list[Said] = []
        problems: list[str] = []
        for target, column in zip(targets, columns, strict=True):
            if self._stopped:
                await column.figures("not generated")
                continue
            messages = [*self._conversation.messages(target.who), Message(role="user", content=text)]
            try:
                figures = await self._receive(target.request(messages, sampling, on), column)
            except WorkbenchError as error:
                problems.append(str(error))
                await column.problem(str(error))
            else:
                await column.figures(figures + seed)
                replies.append(Said(who=target.who, text=column.text, figures=figures + seed))
        return replies, problems

    async def _receive(self, request: ReplyRequest, column: Column) -> str:
        """Write the reply down as it comes; returns its figures in words."""
        figures = "the reply was interrupted"
        self._request_id = new_request_id()
        try:
            await self.workbench.start_engine()
            async with aclosing(self.session.engine.reply(request, request_id=self._request_id)) as pieces:
                async for piece in pieces:
                    self.set_class(isinstance(piece, Progress), "-loading")
                    if isinstance(piece, Progress):
                        self.query_one(PhaseBar).show(piece.phase, piece.fraction, piece.detail)
                        continue
                    if piece.prompt_tokens:
                        await self._show_context(piece)
                    if piece.text:
                        await column.write(piece.text)
                    if piece.done:
                        figures = _figures(piece)
        finally:
            await column.close()
        return figures

    async def _show_context(self, piece: ReplyPiece) -> None:
        used = piece.prompt_tokens + piece.tokens
        self._fullness = f"context {used:,} of {piece.context_tokens:,} tokens" if piece.context_tokens else ""
        if piece.left_out > self._left_out:
            await self.query_one(Transcript).notice(
                f"The context is full: the oldest {_questions(piece.left_out)} no longer sent to the model."
            )
        self._left_out = piece.left_out
        self.show_target()

    # -- what is shown --------------------------------------------------------------------------------------------

    def show_target(self) -> None:
        one = self.one
        names = self.session.names
        name = plain(one.named(names))
        parts: list[str | Content | tuple[str, str]] = []
        most = max(self.size.width - _AROUND_NAME, _AROUND_NAME)
        if self.beside:
            dim = f" {GLYPHS.separator} "
            parts = [
                ("side by side ", "$foreground 70%"),
                (plain(dim.join(c.signed(names) for c in self.beside)), "bold"),
            ]
        else:
            parts = [
                ("chatting with ", "$foreground 70%"),
                titled(name, "" if one.combine else one.name, most=most),
                _state(one, paused=one.target == self.paused),
            ]
        self.query_one("#target", Words).show(Content.assemble(*parts))
        self.query_one("#context", Words).show(Content.styled(self._fullness, "$foreground 70%"))
        self.query_one("#guide", Words).show(_guide(name, not one.bare))
        self.refresh_bindings()


def _state(one: ReplyTarget, *, paused: bool) -> tuple[str, str]:
    if one.bare:
        return "  base model, no adapter", "$foreground 70%"
    if not one.adapter:
        return f"  {GLYPHS.off} base", "$warning"
    return f"  {GLYPHS.on} tuned{one.strength}" + (", paused: current weights" if paused else ""), "$success"


def _questions(count: int) -> str:
    return "question and its reply are" if count == 1 else f"{count} questions and their replies are"


def _guide(name: str, tuned: bool) -> Content:
    first = f"{name} is ready." if tuned else f"No adapter yet: chatting with the base model {name}."
    return Content.assemble(
        (f"{first}\n", "bold"),
        ("Enter", "bold $accent"),
        (" to type.\n\n", ""),
        ("s shows base and tuned side by side; b switches the adapter off and on.", "$foreground 70%")
        if tuned
        else ("5 opens Train, where Enter starts fine-tuning.", "$foreground 70%"),
    )


def _figures(piece: ReplyPiece) -> str:
    parts = [f"{piece.tokens} tokens"]
    if piece.tokens_per_second:
        parts.append(f"{piece.tokens_per_second:.1f} tok/s")
    parts.append(f"first token after {piece.first_token_seconds:.2f} s")
    if piece.reason in _WHY:
        parts.append(_WHY[piece.reason])
    return f" {GLYPHS.separator} ".join(parts)
