"""The conversation that is on screen, and where it is saved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from workbench.data.records.tool_calls import function_name
from workbench.engine.client.conversations import Chats, Conversation, Said, Turn, new_conversation
from workbench.engine.client.protocol import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.storage.paths import Home


class OpenConversation:
    """Holds the turns of a conversation. It is saved with its reply target, which :meth:`save` learns first.

    Args:
        home: where conversations are saved.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._conversation = new_conversation()
        self._chats: Chats | None = None

    @property
    def id(self) -> str:
        """The id, by which it is saved."""
        return self._conversation.id

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The questions with their replies."""
        return self._conversation.turns

    @property
    def content(self) -> Conversation:
        """The conversation as it is now."""
        return self._conversation

    def replace(self, conversation: Conversation, chats: Chats | None) -> None:
        """Hold another conversation; ``chats`` is where it is saved, None for a new one."""
        self._conversation, self._chats = conversation, chats

    def ask_from(self, turn: int | None, system: str, tools: Sequence[dict[str, Any]]) -> Conversation:
        """Drop a turn and all after it, to be asked again; None drops nothing.

        Returns:
            The conversation before, for :meth:`restore`.
        """
        before = self._conversation
        kept = before.turns if turn is None else before.turns[:turn]
        self._conversation = before.model_copy(update={"turns": kept, "system": system, "tools": tuple(tools)})
        return before

    def restore(self, before: Conversation) -> None:
        """Take back what :meth:`ask_from` dropped."""
        self._conversation = before

    def question(self, text: str, *, is_result: bool) -> Message:
        """Return what is asked: the user's words, or the result of the call that is next."""
        calls = self._conversation.open_calls
        if not (is_result and calls):
            return Message(role="user", content=text)
        return Message(role="tool", content=text, name=function_name(calls[0]))

    def add(self, question: Message, replies: Sequence[Said] = ()) -> None:
        """Add a turn."""
        role: Literal["user", "tool"] = "tool" if question.role == "tool" else "user"
        turn = Turn(question=question.content, replies=tuple(replies), role=role, name=question.name)
        turns = (*self.turns, turn)
        self._conversation = self._conversation.model_copy(update={"turns": turns})

    def take_name(self, renamed: Conversation) -> None:
        """Take over a new name, if it is this conversation that was renamed."""
        if renamed.id == self.id:
            self._conversation = self._conversation.model_copy(update={"title": renamed.title})

    async def save(self, target: str) -> None:
        """Save the conversation.

        Args:
            target: the run, checkpoint or model that a new conversation belongs to.

        Raises:
            WorkbenchError: it cannot be written.
        """
        if self._chats is None:
            self._chats = await asyncio.to_thread(Chats.of, self._home, target)
        self._conversation = await asyncio.to_thread(self._chats.save, self._conversation)

    @property
    def chats(self) -> Chats | None:
        """Where it is saved; None until it was."""
        return self._chats

    def last_replies(self) -> str:
        """Return the last reply; replies side by side together, each under its name."""
        replies = self.turns[-1].replies
        if len(replies) == 1:
            return replies[0].as_text
        return "\n\n".join(f"{reply.who}:\n{reply.as_text}" for reply in replies)
