"""The app under a test's hand: opened on an empty home with a scripted engine, and waited for by conditions."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from textual._xterm_parser import XTermParser
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, Static, TextArea

from screens.app import WorkbenchApp
from screens.widgets.pane import Pane
from tests.screens.scripted import ScriptedEngine
from tests.skipping_clock import real_monotonic
from workbench.engine.client.protocol import DeviceFacts
from workbench.machine.gpu import GpuSample
from workbench.storage.paths import Home

_CHARACTERS = {"full_stop": ".", "minus": "-", "slash": "/", "underscore": "_"}

WIDE = (120, 40)
NARROW = (80, 24)


@dataclass
class Opened:
    """A running app and what drives it."""

    app: WorkbenchApp
    pilot: Pilot[None]
    engine: ScriptedEngine

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds; at most some seconds.

        Raises:
            AssertionError: it never does.
        """
        end, turns = real_monotonic() + 10, 0
        while not condition():
            # Ten seconds of the app's clock, which may skip them, and of the machine's, which may be busy.
            turns += 1
            assert turns < 400 or real_monotonic() < end, f"never happened: {what}"
            await self.pilot.pause(0.025)

    async def sees(self, text: str) -> None:
        """Wait until a text stands on the screen: what is shown is painted a moment after it is known.

        Raises:
            AssertionError: it never does; with what stands there instead.
        """
        try:
            await self.until(lambda: text in self.words, text)
        except AssertionError:
            raise AssertionError(f"{text!r} is not on the screen:\n{self.words}") from None

    async def is_asked(self, text: str) -> None:
        """Wait until the dialog in front says something, wherever its lines end.

        Raises:
            AssertionError: it never does.
        """
        await self.until(
            lambda: any(text in str(part.content) for part in self.app.screen.query("Dialog Static").results(Static)),
            text,
        )

    async def is_told(self, text: str) -> None:
        """Wait until a notice says something; a test's screen shows none.

        Raises:
            AssertionError: none does.
        """
        await self.until(lambda: any(text in notice.message for notice in self.app._notifications), text)

    async def at_rest(self, seconds: float = 3.0) -> None:
        """Wait until nothing has changed on the screen for some seconds: no mark of a change, no figure on its way.

        Raises:
            AssertionError: it never comes to rest.
        """
        # A cursor that blinks is on a picture or is not.
        for field in (*self.app.screen.query(Input), *self.app.screen.query(TextArea)):
            field.cursor_blink = False
        words, unchanged = "", 0.0
        for _ in range(200):
            before, words = words, self.words
            unchanged = unchanged + 0.1 if words == before else 0.0
            if unchanged >= seconds:
                return
            await self.pilot.pause(0.1)
        raise AssertionError("the screen never came to rest")

    async def has_gpus(self, *gpus: GpuSample) -> None:
        """The machine has these GPUs from now on, and its engine computes on the first."""
        self.engine.backend.device = DeviceFacts(kind="cuda", name=gpus[0].name, total_bytes=gpus[0].total_bytes or 0)
        self.app.session.gpus = gpus
        if self.engine.running:
            self.app.session.status = await self.engine.status()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self._keys_handled()

    async def burst(self, *keys: str) -> None:
        """Press keys that arrive together, as over a slow line: none waits for what the one before it does."""
        for key in keys:
            self.app.post_message(Key(key, key if len(key) == 1 else _CHARACTERS.get(key)))
        await self._keys_handled()

    async def packet(self, text: str) -> None:
        """Send what a terminal writes in one packet, as bytes of keys and escape sequences."""
        for event in XTermParser(False).feed(text):
            self.app.post_message(event)
        await self._keys_handled()

    async def _keys_handled(self) -> None:
        await self.pilot.pause()
        await self.until(lambda: not self.app.key_order.is_busy, "the keys are handled")
        await self.pilot.pause()

    async def tab(self, name: str) -> Pane:
        """Open a tab as its command does, and wait for it."""
        await self.app.action_show_tab(name)
        await self.until(lambda: self.app.pane_in_front is not None and self.app.pane_in_front.id == name, name)
        await self.pilot.pause()
        assert self.app.pane_in_front is not None
        return self.app.pane_in_front

    @property
    def words(self) -> str:
        """All that stands on the screen, line by line."""
        return "\n".join("".join(segment.text for segment in strip) for strip in self._strips())

    def _strips(self) -> list[list[object]]:
        width, height = self.app.size
        compositor = self.app.screen._compositor
        return [list(strip) for strip in compositor.render_strips()][:height] if width else []


@asynccontextmanager
async def opened(
    root: Path, *, size: tuple[int, int] = WIDE, engine: ScriptedEngine | None = None, tab: str | None = None
) -> AsyncIterator[Opened]:
    """The app with a tab in front, blind to the hardware of the machine that tests.

    Args:
        tab: the first to be mounted; None for the one that the app chooses, which is mostly Models: its long list
            takes a third of the time of a short test.
    """
    home = Home(root)
    scripted = engine or ScriptedEngine(home)
    app = WorkbenchApp(home, scripted)
    app.sample_hardware = False
    app.trace_steps = False
    if tab is not None:
        await app.action_show_tab(tab)
    async with app.run_test(size=size) as pilot:
        opened = Opened(app, pilot, scripted)
        await opened.until(lambda: app.pane_in_front is not None, "the first tab")
        await opened.until(lambda: app.session.status is not None or not scripted.running, "the engine's state")
        await pilot.pause()
        yield opened
        app.workers.cancel_all()  # as when the app ends by itself
        assert not app.faults, app.faults
