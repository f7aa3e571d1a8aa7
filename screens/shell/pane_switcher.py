"""Shows one tab's pane at a time, mounted when it is first shown."""

from __future__ import annotations

import asyncio
from importlib import import_module

from textual.widgets import ContentSwitcher

from screens.tabs import TABS
from screens.widgets.pane import Pane


class PaneSwitcher(ContentSwitcher):
    """The panes of the tabs, by the ids of :data:`screens.tabs.TABS`."""

    def __init__(self) -> None:
        super().__init__(id="panes")
        self._front: Pane | None = None
        self._panes: dict[str, Pane] = {}
        self._switching = asyncio.Lock()

    @property
    def front(self) -> Pane | None:
        """The pane that is shown; None before the first one is mounted and while the app closes."""
        return self._front if self.is_attached else None

    async def bring_to_front(self, name: str) -> None:
        """Show a tab's pane and give it the focus. Its module is imported and its widgets mounted the first time."""
        # Keys come through the focused widget and through the app: a second key must not mount a pane twice.
        async with self._switching:
            pane, before = await self._pane(name), self.front
            if pane is not before:
                if before is not None:
                    before.is_shown = False
                    before.on_hidden()
                self.current = name
                self._front = pane
                pane.is_shown = True
                pane.on_shown()
            pane.take_focus()

    async def _pane(self, name: str) -> Pane:
        if name not in self._panes:
            tab = next(tab for tab in TABS if tab.id == name)
            pane_class: type[Pane] = getattr(await asyncio.to_thread(import_module, tab.module), tab.pane)
            self._panes[name] = pane_class(id=name)
            await self.add_content(self._panes[name])
        return self._panes[name]
