"""Chat: ask a run's adapter or its base model, with the weights that the engine holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.containers import HorizontalGroup, Vertical
from textual.widgets import Input

from screens.chat import heading
from screens.chat.blind import SIDES, BlindRating, Side
from screens.chat.exchange import Exchange
from screens.chat.keys import KEYS
from screens.chat.open_conversation import OpenConversation
from screens.chat.prompt import Prompt
from screens.chat.reply_targets import ReplyTargets
from screens.chat.saved_chats import SavedChats
from screens.chat.settings import ChatSettings
from screens.chat.transcript import Transcript
from screens.messages import RecipeChanged, RunSelected, RunsRenamed, StatusChanged
from screens.shell.phase_bar import PhaseBar
from screens.widgets.pane import Pane, beside
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content
from screens.widgets.sizes import NARROW_BELOW
from workbench.data.records.tool_calls import call_text
from workbench.engine.client.conversations import new_conversation
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from screens.chat.transcript import TurnView
    from workbench.engine.client.conversations import Chats, Conversation, Said
    from workbench.engine.client.protocol import Message, ReplyPiece
    from workbench.progress import Progress

_TURNS_SHOWN = 40


class ChatPane(Pane):
    """Conversations with a run's adapter, with its base model, or with several targets side by side."""

    NAME = "Chat"
    GUIDE = (
        "{chat.write} opens the prompt and sends it. You chat with the newest finished run unless you choose another "
        "model with {chat.pick}; a paused run replies with its current weights. {chat.switch} switches the adapter "
        "off and on, {chat.next} and {chat.previous} go to the next and previous adapter on the same base, "
        "{chat.more} and {chat.less} scale the adapter, {chat.combine} combines several; the base stays in memory. "
        "{chat.beside} shows base and tuned side by side at the same seed, {chat.columns} chooses up to three others; "
        "{chat.blind} hides which of two is which until you rate them with {chat.left} {chat.even} {chat.right}. Esc "
        "stops a reply; {chat.edit} edits your last question, {chat.again} regenerates the reply, {chat.reasoning} "
        "unfolds its reasoning. If the model calls one of the tools given in the settings, type the result. "
        "Conversations are saved with the run: {chat.list} lists them. {chat.settings} opens system prompt and "
        "sampling."
    )
    DEFAULT_CSS = beside(__file__)
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._conversation = OpenConversation(self.session.home)
        self._is_replying = False
        self._fullness = ""
        self._left_out = 0
        self._columns = 0
        self._targets = ReplyTargets(self.workbench, self._targets_changed)
        self._blind = BlindRating(self.session.home)
        self._exchange = Exchange(self.workbench, self._show_loading, self._show_context)
        self._saved_chats = SavedChats(
            self.workbench, self._open_saved, self._conversation.take_name, self._close_removed
        )
        self._target_line = Paragraph(id="target")
        self._context_line = Paragraph(id="context")
        self._guide = Paragraph(id="guide")
        self._transcript = Transcript()
        self._progress = PhaseBar()
        self._settings = ChatSettings(id="settings")
        self._prompt = Prompt(
            self._transcript, lambda: self.check_action("switch", ()), lambda: self.check_action("rate", ()) is True
        )

    def compose(self) -> ComposeResult:
        yield HorizontalGroup(self._target_line, self._context_line, id="heading")
        with Vertical(id="body"):
            yield Vertical(self._guide, self._transcript, self._progress, id="talk")
            yield self._settings
        yield self._prompt

    def on_mount(self) -> None:
        self.set_class(True, "-silent")

    def on_resize(self, event: events.Resize) -> None:
        narrow = event.size.width < NARROW_BELOW
        if narrow != self.has_class("-narrow") or not self.has_class("-sized"):
            self.set_class(narrow, "-narrow").set_class(not narrow and not self._targets.side_by_side, "-settings")
            self.add_class("-sized")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        has_turns, targets = bool(self._conversation.turns), self._targets
        match action:
            case "stop":
                return self._is_replying and not self._exchange.is_over
            case "switch":
                return None if targets.single.is_model or targets.side_by_side else True
            case "beside" | "scale":
                return not targets.single.is_model or bool(targets.side_by_side)
            case "edit" | "again" | "clear":
                return has_turns and not self._is_replying
            case "copy" | "copy_all":
                # The text has the names.
                return has_turns and not self._blind.is_waiting
            case "rate":
                return self._blind.is_waiting and not self._is_replying
            case "blind":
                return not self._is_replying
            case "reasoning":
                return self._transcript.has_reasoning
            case "conversations" | "combine" | "columns" | "cycle" | "pick":
                return not self._is_replying
        return True

    # -- messages of the app --------------------------------------------------------------------------------------

    def on_shown(self) -> None:
        self._targets.paused_changed()
        self.run_worker(self._targets.choose_default(), group="target", exclusive=True)

    @on(RunSelected)
    def _run_selected(self, message: RunSelected) -> None:
        self._targets.take(message.run)

    @on(RunsRenamed)
    def _runs_renamed(self) -> None:
        self._show_target()

    @on(RecipeChanged)
    def _recipe_changed(self) -> None:
        self.on_shown()

    @on(StatusChanged)
    def _status_changed(self) -> None:
        if self._targets.paused_changed():
            self.on_shown()

    # -- who replies ----------------------------------------------------------------------------------------------

    def _targets_changed(self) -> None:
        columns = len(self._targets.side_by_side)
        if self._blind.is_on and self._blind.targets != self._targets.side_by_side:
            self._blind.stop()
        if columns != self._columns:
            self._columns = columns
            if columns:
                self.remove_class("-settings")  # the columns need its place
        self._show_target()

    @on(Prompt.AdapterSwitched)
    def action_switch(self) -> None:
        """Switch the adapter off or on."""
        self._targets.switch()

    def action_beside(self) -> None:
        """Compare base and tuned side by side, or go back to one."""
        self._targets.toggle_beside()

    async def action_blind(self) -> None:
        """Hide which of two models is which until the user rates their replies, or show it again."""
        if self._blind.is_on:
            self._blind.stop()
        else:
            if not self._targets.side_by_side:
                self._targets.toggle_beside()
            try:
                await self._blind.start(self._targets.side_by_side)
            except WorkbenchError as error:
                self.workbench.show_error(error)
        self._show_target()

    @on(Prompt.Rated)
    def _rated(self, message: Prompt.Rated) -> None:
        self.action_rate(message.side)

    def action_rate(self, side: Side) -> None:
        """Save which of two replies is better, and show which model wrote which."""
        self.run_worker(self._rate(side), group="rating", exclusive=True)

    async def _rate(self, side: Side) -> None:
        if not self._blind.is_waiting:
            return
        try:
            preference = await self._blind.rate(side)
        except WorkbenchError as error:
            self.workbench.show_error(error)
            return
        from workbench.evaluation.comparison_text import preference_text

        await self._transcript.notice(preference_text(preference))
        self._show_target()

    def action_scale(self, steps: int) -> None:
        """Increase or decrease the adapter scale."""
        self._targets.scale(steps)

    async def action_cycle(self, by: int) -> None:
        """Take the next or the previous adapter on the same base."""
        await self._targets.cycle(by)

    async def action_pick(self) -> None:
        """Choose the run, checkpoint or base model to chat with."""
        await self._targets.pick()

    async def action_columns(self) -> None:
        """Choose what to compare side by side."""
        await self._targets.pick_columns()

    async def action_combine(self) -> None:
        """Combine adapters, each with a weight."""
        await self._targets.combine()

    # -- the prompt and the settings ------------------------------------------------------------------------------

    def action_write(self) -> None:
        """Open the prompt."""
        self._prompt.focus()

    @on(Prompt.EditDiscarded)
    def _edit_discarded(self) -> None:
        self.focus()

    def action_edit(self) -> None:
        """Edit the last question; again: the one before it."""
        last = len(self._conversation.turns) if self._prompt.edited is None else self._prompt.edited
        turn = max(last - 1, 0)
        self._prompt.edit(turn, self._conversation.turns[turn].question)

    def action_settings(self) -> None:
        """Show or hide system prompt and sampling."""
        self.toggle_class("-settings")

    def action_reasoning(self) -> None:
        """Unfold or fold the reasoning of the replies."""
        self._transcript.toggle_reasoning()

    def action_greedy(self) -> None:
        """Switch greedy decoding on or off."""
        self.notify("Greedy." if self._settings.toggle_greedy() else "Drawn.", timeout=2)

    # -- asking and replying --------------------------------------------------------------------------------------

    @on(Input.Submitted, "#prompt")
    def _send(self) -> None:
        text, turn, is_result = self._prompt.text, self._prompt.edited, self._prompt.is_result
        if self._is_replying:
            return
        self._prompt.reset()
        if text:
            question = self._conversation.question(text, is_result=is_result)
            self.run_worker(self._converse(self._asked_at(turn, text) or question, turn))

    def _asked_at(self, turn: int | None, text: str) -> Message | None:
        """Return the question of an earlier turn with another text."""
        return None if turn is None else self._conversation.turns[turn].message.model_copy(update={"content": text})

    def action_again(self) -> None:
        """Regenerate the last reply."""
        last = len(self._conversation.turns) - 1
        self.run_worker(self._converse(self._conversation.turns[last].message, last))

    def action_stop(self) -> None:
        """Stop the reply being generated, and those that were to follow beside it."""
        self.workbench.attempt(self._exchange.stop())

    async def _converse(self, question: Message, turn: int | None = None) -> None:
        """Ask a new question, or ask again from a turn on, which drops that turn and all after it.

        A result of a tool is only added while results of other calls are missing.
        """
        self._is_replying = True
        self._exchange.begin()
        self.refresh_bindings()
        try:
            self.set_class(False, "-silent")
            if turn is not None:
                await self._transcript.keep_first(turn)
            before = self._conversation.ask_from(turn, self._settings.system, self._settings.tools)
            if question.role == "tool" and len(self._conversation.content.open_calls) > 1:
                self._conversation.add(question)
                await self._transcript.ask(question, ())
                await self._save()
                return
            view, replies, problems = await self._replies_to(question)
            if replies:
                self._conversation.add(question, replies)
                await self._save()
                return
            # The question goes back into the prompt, to be sent again.
            view.failed = True
            self._conversation.restore(before)
            if turn is not None:
                await self._open(before, self._conversation.chats)
                await self._transcript.notice(" ".join(problems), error=True)
            self._prompt.text = self._prompt.text or question.content
        finally:
            self._is_replying = False
            self.set_class(False, "-loading")
            self._show_target()
        if (error := self._exchange.missing_base) is not None:
            self._targets.ask_base(error, lambda: self._ask_again(question, turn))

    def _ask_again(self, question: Message, turn: int | None) -> None:
        """Ask a question that got no reply, once the base is named."""
        self._prompt.text = ""
        self.run_worker(self._converse(question, turn))

    async def _replies_to(self, question: Message) -> tuple[TurnView, list[Said], list[str]]:
        """Show a question and ask all targets; returns its view, the replies, and what went wrong with the others."""
        beside = self._targets.side_by_side
        targets = self._blind.next_order(beside) or (replace(self._targets.single, merged=self._settings.merged),)
        under = self._targets.under if len(targets) > 1 or not targets[0].is_model else ""
        names = SIDES if self._blind.is_on else [target.who for target in targets]
        view = await self._transcript.ask(question, names, is_blind=self._blind.is_on)
        asked = list(zip(targets, view.columns, strict=True))
        sampling = self._settings.sampling
        replies, problems = await self._exchange.ask(
            self._conversation.content, question, asked, sampling, under, self._targets.base
        )
        if self._blind.is_on:
            self._blind.await_rating(view, question.content, targets, replies, whole=not self._exchange.was_stopped)
            if self._blind.is_waiting:
                await self._transcript.notice("Which reply is better?  < left   = neither   > right")
            # Kept in the order of the models, not in that of the screen.
            order = [target.who for target in beside]
            replies.sort(key=lambda reply: order.index(reply.who))
        return view, replies, problems

    def _show_loading(self, progress: Progress | None) -> None:
        self.set_class(progress is not None, "-loading")
        if progress is not None:
            self._progress.show(progress.phase, progress.fraction, progress.detail)

    async def _show_context(self, piece: ReplyPiece) -> None:
        if piece.notice:
            await self._transcript.notice(piece.notice)
            return
        used = piece.prompt_tokens + piece.tokens
        self._fullness = f"context {used:,} of {piece.context_tokens:,} tokens" if piece.context_tokens else ""
        if piece.left_out > self._left_out:
            await self._transcript.notice(heading.left_out_text(piece.left_out))
        self._left_out = piece.left_out
        self._show_target()

    # -- conversations --------------------------------------------------------------------------------------------

    async def action_clear(self) -> None:
        """Start a new conversation."""
        await self._open(new_conversation(), None)

    async def _open(self, conversation: Conversation, chats: Chats | None) -> None:
        self._prompt.reset()
        self._blind.forget()
        self._conversation.replace(conversation, chats)
        self._fullness, self._left_out = "", 0
        self.set_class(not conversation.turns, "-silent")
        await self._transcript.show(conversation, most=_TURNS_SHOWN)
        self._show_target()

    async def _save(self) -> None:
        """Save the conversation; if that fails, the chat continues."""
        try:
            await self._conversation.save(self._targets.single.target)
        except WorkbenchError as error:
            self.notify(str(error), severity="warning", markup=False)

    def action_conversations(self) -> None:
        """Open, rename or remove a conversation."""
        browsing = self._saved_chats.browse(self._targets.single.target, self._conversation.id)
        self.workbench.attempt(browsing, asks=True)

    async def _open_saved(self, conversation: Conversation, chats: Chats) -> None:
        self._settings.system = plain(conversation.system)
        self._settings.use_tools(conversation.tools)
        await self._open(conversation, chats)

    async def _close_removed(self, removed: Conversation) -> None:
        if removed.id == self._conversation.id:
            await self.action_clear()

    def action_copy(self) -> None:
        """Copy the last reply; replies side by side are copied together, each under its name."""
        self._to_clipboard(self._conversation.last_replies())

    def action_serve(self) -> None:
        """Serve the model that replies, and its base, over an API."""
        from screens.dialogs.serve import ServeScreen

        target = self._targets.single.target
        self.app.push_screen(ServeScreen(self.workbench, target, self.session.names.of(target)))

    def action_copy_all(self) -> None:
        """Copy the conversation as Markdown."""
        self._to_clipboard(self._conversation.content.as_markdown())

    def _to_clipboard(self, text: str) -> None:
        self.app.copy_to_clipboard(plain(text, lines=True))
        self.notify("Copied.", timeout=2)

    # -- what is shown --------------------------------------------------------------------------------------------

    def _show_target(self) -> None:
        targets, names = self._targets, self.session.names
        self._target_line.show(heading.target_text(targets, names, self.size.width, is_blind=self._blind.is_on))
        self._context_line.show(plain_content(self._fullness, "$foreground 70%"))
        self._prompt.expect_result(next(map(call_text, self._conversation.content.open_calls), ""))
        self._guide.show(heading.guide_text(plain(targets.single.named(names)), is_tuned=not targets.single.is_model))
        self.refresh_bindings()
