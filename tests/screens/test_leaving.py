"""What works for a dialog while that is taken apart."""

import asyncio
from pathlib import Path

from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.widgets import Static

from tests.screens.piloting import opened


class _SlowToGo(Static):
    async def on_unmount(self) -> None:
        await asyncio.sleep(0.1)


class _Busy(ModalScreen[None]):
    """Its work comes back when one child is gone and another not yet."""

    def compose(self) -> ComposeResult:
        yield Static(id="figure")
        yield _SlowToGo()

    def on_mount(self) -> None:
        self.run_worker(self._work())

    async def _work(self) -> None:
        while self.query("#figure"):
            await asyncio.sleep(0.005)
        self.query_one("#figure", Static).update("found")


async def test_work_ends_before_the_dialog_that_it_is_for_is_taken_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        dialog = _Busy()
        await screen.app.push_screen(dialog)
        await screen.until(lambda: any(worker.node is dialog for worker in screen.app.workers), "the work")
        await dialog.dismiss()
        await screen.until(lambda: not dialog.is_attached, "gone")
    assert screen.app._exception is None
