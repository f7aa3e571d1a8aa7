"""Sends a question to one or several reply targets, and writes the replies into columns as they come."""

from __future__ import annotations

import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING

from screens.widgets.glyphs import GLYPHS
from workbench.engine.client.protocol import MISSING_BASE, CancelRequest, ReplyPiece, ReplyRequest, new_request_id
from workbench.errors import WorkbenchError
from workbench.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from screens.chat.reply_view import Column
    from screens.chat.targets import ReplyTarget
    from screens.workbench import Workbench
    from workbench.engine.client.conversations import Conversation, Said
    from workbench.engine.client.protocol import Message, Sampling

_WHY = {"length": "cut at max new tokens", "cancelled": "stopped"}


class Exchange:
    """Asks the engine for replies. The targets share one model, so they reply in turn.

    Attributes:
        is_over: whether the last reply to the question has ended; saving the conversation may follow.
        missing_base: the error of a reply whose base was not found under the name that the adapter or the user has for
            it, or does not fit; None if there was none.

    Args:
        workbench: the app.
        loading: called with the progress of loading a model, and with None once text comes.
        received: called with each piece that says how full the context is.
    """

    def __init__(
        self,
        workbench: Workbench,
        loading: Callable[[Progress | None], None],
        received: Callable[[ReplyPiece], Awaitable[None]],
    ) -> None:
        self._workbench = workbench
        self._loading = loading
        self._received = received
        self._is_stopped = False
        self._request_id = ""
        self.is_over = False
        self.missing_base: WorkbenchError | None = None

    @property
    def was_stopped(self) -> bool:
        """Whether the user stopped the replies to the question."""
        return self._is_stopped

    def begin(self) -> None:
        """Get ready for the next question."""
        self._is_stopped = self.is_over = False
        self.missing_base = None

    async def stop(self) -> None:
        """Stop the reply that is being generated, and skip those after it."""
        self._is_stopped = True
        await self._workbench.session.engine.cancel(CancelRequest(id=self._request_id))

    async def ask(
        self,
        conversation: Conversation,
        question: Message,
        targets: Sequence[tuple[ReplyTarget, Column]],
        sampling: Sampling,
        under: str,
        base: str = "",
    ) -> tuple[list[Said], list[str]]:
        """Ask each target; several sample with the same seed.

        Args:
            conversation: the turns before the question.
            targets: each with the column for its reply.
            under: the target whose base all of them use; empty for a model's own.
            base: the source of that base where the user has named it; else empty.

        Returns:
            The replies, and what went wrong with the others.
        """
        seed = ""
        if len(targets) > 1 and sampling.temperature > 0:
            drawn = secrets.randbelow(10**6) if sampling.seed is None else sampling.seed
            sampling = sampling.model_copy(update={"seed": drawn})
            seed = f" {GLYPHS.separator} seed\u00a0{sampling.seed}"
        replies: list[Said] = []
        problems: list[str] = []
        for number, (target, column) in enumerate(targets, 1):
            if self._is_stopped:
                await column.show_figures("not generated")
                continue
            messages = [*conversation.messages(target.who), question]
            request = target.request(messages, sampling, under, conversation.tools, base)
            try:
                figures = await self._receive(request, column)
            except WorkbenchError as error:
                problems.append(str(error))
                if error.kind == MISSING_BASE or (base and error.kind == "adapter_of_another_base"):
                    self.missing_base = error
                await column.show_problem(str(error))
            else:
                # Before the figures say so: from then on, there is nothing to stop.
                self.is_over = number == len(targets)
                await column.show_figures(figures + seed)
                replies.append(column.said(target.who, figures + seed))
        return replies, problems

    async def _receive(self, request: ReplyRequest, column: Column) -> str:
        """Write a reply into its column as it comes; returns its figures in words."""
        figures = "the reply was interrupted"
        self._request_id = new_request_id()
        try:
            await self._workbench.start_engine()
            engine = self._workbench.session.engine
            async with aclosing(engine.reply(request, request_id=self._request_id)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Progress):
                        self._loading(piece)
                        continue
                    self._loading(None)
                    if piece.prompt_tokens or piece.notice:
                        await self._received(piece)
                    if piece.reasoning:
                        await column.write_reasoning(piece.reasoning)
                    if piece.text:
                        await column.write(piece.text)
                    if piece.message is not None:
                        await column.show_message(piece.message)
                    if piece.done:
                        figures = _figures(piece)
        finally:
            await column.close()
        return figures


def _figures(piece: ReplyPiece) -> str:
    parts = [f"{piece.tokens} tokens"]
    if piece.tokens_per_second:
        parts.append(f"{piece.tokens_per_second:.1f} tok/s")
    parts.append(f"first token after {piece.first_token_seconds:.2f} s")
    if piece.reason in _WHY:
        parts.append(_WHY[piece.reason])
    return f" {GLYPHS.separator} ".join(parts)
