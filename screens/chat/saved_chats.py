"""The saved conversations of a reply target: open, rename, remove."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from screens.chat.dialogs import OPEN, RENAME, ConversationsDialog
from screens.dialogs.questions import YES, Choice, ChoiceDialog, LineDialog
from screens.widgets.plain import plain
from workbench.engine.client.conversations import Chats

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from screens.workbench import Workbench
    from workbench.engine.client.conversations import Conversation


class SavedChats:
    """Lists the conversations of a target, and does what the user chooses. To be awaited in a worker.

    Args:
        workbench: the app.
        opened: called with a conversation to show, and where it is saved.
        renamed: called with a conversation under its new name.
        removed: called with a conversation that is gone.
    """

    def __init__(
        self,
        workbench: Workbench,
        opened: Callable[[Conversation, Chats], Awaitable[None]],
        renamed: Callable[[Conversation], None],
        removed: Callable[[Conversation], Awaitable[None]],
    ) -> None:
        self._workbench = workbench
        self._opened = opened
        self._renamed = renamed
        self._removed = removed

    async def browse(self, target: str, current: str) -> None:
        """Show the list, and show it again after a renaming.

        Args:
            target: a run, a checkpoint or a model.
            current: the id of the open conversation.
        """
        chats = await asyncio.to_thread(Chats.of, self._workbench.session.home, target)
        while found := await asyncio.to_thread(chats.all):
            answer = await self._workbench.push_screen_wait(ConversationsDialog(found, current))
            if answer is None:
                return
            action, chosen = answer
            conversation = next(one for one in found if one.id == chosen)
            if action == OPEN:
                await self._opened(conversation, chats)
            elif action == RENAME:
                if await self._rename(conversation, chats):
                    continue
            else:
                await self._remove(conversation, chats)
            return
        self._workbench.notify("No messages yet.", timeout=3)

    async def _rename(self, conversation: Conversation, chats: Chats) -> bool:
        """Ask for a new name; returns whether there is one."""
        dialog = LineDialog("Rename", "Name of the conversation", plain(conversation.name))
        name = await self._workbench.push_screen_wait(dialog)
        if name is None:
            return False
        renamed = conversation.model_copy(update={"title": name.strip()})
        self._renamed(await asyncio.to_thread(chats.save, renamed))
        return True

    async def _remove(self, conversation: Conversation, chats: Chats) -> None:
        text = f"{conversation.name}\n\nThis cannot be undone."
        question = ChoiceDialog("Remove?", text, [Choice(YES, "Remove", "remove")], no="Keep", is_risky=True)
        if await self._workbench.push_screen_wait(question) is not None:
            await asyncio.to_thread(chats.remove, conversation)
            await self._removed(conversation)
