"""Workers end before the widgets that they update are removed: when a dialog is dismissed, and when the app quits."""

import asyncio
from pathlib import Path

from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.widgets.pane import Pane
from tests.screens.piloting import opened


class _SlowToGo(Static):
    async def on_unmount(self) -> None:
        await asyncio.sleep(0.1)


class _Busy(ModalScreen[None]):
    """Its worker would resume after one child was removed and before another is."""

    def compose(self) -> ComposeResult:
        yield Static(id="figure")
        yield _SlowToGo()

    def on_mount(self) -> None:
        self.run_worker(self._work())

    async def _work(self) -> None:
        while self.query("#figure"):
            await asyncio.sleep(0.005)
        self.query_one("#figure", Static).update("found")


class _Answering(ModalScreen[str]):
    """Its worker dismisses it, and has something left to do."""

    is_done = False

    def on_mount(self) -> None:
        self.run_worker(self._work())

    async def _work(self) -> None:
        self.dismiss("answer")
        # A cancelled worker would end here. Textual ends it later, once the dialog is gone.
        await asyncio.sleep(0)
        self.is_done = True


async def test_work_ends_before_the_dialog_that_it_is_for_is_taken_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        dialog = _Busy()
        await screen.app.push_screen(dialog)
        await screen.until(lambda: any(worker.node is dialog for worker in screen.app.workers), "the work")
        await dialog.dismiss()
        await screen.until(lambda: not dialog.is_attached, "gone")
    assert screen.app._exception is None


async def test_a_worker_that_dismisses_its_dialog_runs_to_its_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        answers: list[str | None] = []
        dialog = _Answering()
        await screen.app.push_screen(dialog, answers.append)
        await screen.until(lambda: dialog.is_done, "the rest of the work")
        await screen.until(lambda: answers == ["answer"], "the answer")


async def test_quitting_ends_the_work_of_a_pane_while_its_widgets_are_there(tmp_path: Path) -> None:
    widgets_at_its_end: list[int] = []

    async def work(pane: Pane) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            widgets_at_its_end.append(len(pane.children))

    async with opened(tmp_path) as screen:
        pane = await screen.tab("train")
        worker = pane.run_worker(work(pane))
        await screen.until(lambda: worker.is_running, "the work")
        await screen.app.action_quit()
        await screen.until(lambda: worker.is_finished, "its end")
    assert worker.is_cancelled
    assert widgets_at_its_end[0] > 0
