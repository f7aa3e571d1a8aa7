"""The command palette: every action of every tab, every setting, run, model, preset, dataset and page of the docs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.markup import escape

from screens.palette_commands import Command, actions, everywhere, setting_commands
from screens.palette_library import library_commands
from screens.widgets.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from screens.app import WorkbenchApp

_MOST = 60
"""Hits that are listed at once."""


class WorkbenchCommands(Provider):
    """All that can be done or found, matched by every typed word in its name, its description or its keys."""

    _library: asyncio.Task[Sequence[Command]]

    @property
    def _app(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    async def startup(self) -> None:
        # Not awaited here: Textual would cancel it with the first search, which the next typed character cancels.
        self._library = asyncio.create_task(asyncio.to_thread(library_commands, self._app))

    async def shutdown(self) -> None:
        self._library.cancel()

    async def discover(self) -> Hits:
        for command in self._commands():
            yield DiscoveryHit(escape(command.name), command.run, text=command.name, help=_help(command))

    async def search(self, query: str) -> Hits:
        words, library = query.casefold().split(), await asyncio.shield(self._library)
        commands = [*setting_commands(self._app, query), *self._commands(), *actions(self._app), *library]
        ranked = [(score, command) for command in commands if (score := _score(command, words, query)) > 0]
        ranked.sort(key=lambda one: -one[0])
        for number, (_, command) in enumerate(ranked[:_MOST]):
            # The palette sorts by score: each place has its own.
            yield Hit(1 - number / (2 * _MOST), escape(command.name), command.run, text=command.name,
                      help=_help(command))  # fmt: skip

    def _commands(self) -> list[Command]:
        """Return the actions of the tab in front, and what can be done everywhere."""
        return [*actions(self._app, self.screen), *everywhere(self._app)]


def _help(command: Command) -> str:
    keys = f"{command.keys}   " if command.keys else ""
    return escape(plain(f"{keys}{command.help}"))


def _score(command: Command, words: Sequence[str], query: str) -> float:
    """Return how well a command is matched; 0 if a word is missing. Those in the name count more than others."""
    name, text = command.name.casefold(), command.text
    if command.is_answer:
        return command.weight
    if not all(word in text for word in words):
        return 0
    typed = query.casefold().strip()
    if typed == name:
        return 2.5
    in_name = all(word in name for word in words)
    return command.weight + in_name + 0.3 * (typed in name) + 0.2 * name.startswith(typed)
