"""A model served from Runs and from Chat: the job, its address, its figures and how it ends."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from screens.dialogs.serve import ServeScreen
from screens.shell.jobs_screen import JobsScreen
from tests.screens.piloting import NARROW, opened
from tests.screens.test_runs_pane import history, trained
from workbench.errors import WorkbenchError
from workbench.serving import background
from workbench.serving.background import Listening
from workbench.serving.finished import Finished

URL = "http://127.0.0.1:8000/v1"


class ScriptedServer:
    """In the place of a process: tells what a test puts in, until it is closed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_open = False
        self.news: asyncio.Queue[object] = asyncio.Queue()

    async def serve(self, home, target):
        self.asked.append(target)
        self.is_open = True
        try:
            while True:
                one = await self.news.get()
                if isinstance(one, WorkbenchError):
                    raise one
                yield one
        finally:
            self.is_open = False


@pytest.fixture
def server(monkeypatch) -> ScriptedServer:
    scripted = ScriptedServer()
    monkeypatch.setattr(background, "serve_in_background", scripted.serve)
    return scripted


async def test_a_run_is_served_as_a_job_that_is_watched_copied_from_and_stopped(tmp_path: Path, server) -> None:
    async with opened(tmp_path, tab="runs", engine=trained(tmp_path), size=NARROW) as screen:
        await history(screen, 1)
        await screen.press("A")
        await screen.until(lambda: isinstance(screen.app.screen, ServeScreen), "the dialog")
        await screen.press("enter")
        await screen.until(lambda: server.asked == ["run-01"], "the server starts")
        await screen.sees("Loading. x stop")
        server.news.put_nowait(Listening(URL, 8000, "sesame", ("run-01", "smollm2")))
        for words in (URL, "sesame", "run-01, smollm2", "ssh -L 8000:127.0.0.1:8000", "No requests yet."):
            await screen.sees(words)
        server.news.put_nowait(Finished("run-01", 12, 40, 2.0, "stop", 1))
        await screen.sees("1 request, 40 tokens, 20.0 tok/s. 1 running.")
        copied = []
        screen.app.copy_to_clipboard = copied.append
        await screen.press("y", "k", "s")
        assert copied[:2] == [URL, "sesame"]
        assert copied[2].startswith("ssh -L 8000:127.0.0.1:8000 ")

        # It continues without the dialog, and the list of jobs leads back to it.
        await screen.press("escape")
        await screen.press("f9")
        await screen.until(lambda: isinstance(screen.app.screen, JobsScreen), "the list of jobs")
        await screen.sees("server of run-01")
        await screen.sees("1 request, 40 tokens, 20.0 tok/s")
        assert server.is_open
        await screen.press("enter")
        await screen.until(lambda: isinstance(screen.app.screen, ServeScreen), "its dialog")
        await screen.sees(URL)
        await screen.press("x")
        await screen.until(lambda: not server.is_open, "the end of the server")
        await screen.sees("The server has stopped")


async def test_a_server_that_does_not_start_says_why(tmp_path: Path, server) -> None:
    async with opened(tmp_path, tab="chat", engine=trained(tmp_path)) as screen:
        await screen.until(partial(screen.app.pane_in_front.check_action, "serve", ()), "the pane")
        await screen.sees("run-01")
        await screen.press("A")
        await screen.until(lambda: isinstance(screen.app.screen, ServeScreen), "the dialog")
        await screen.press("enter")
        await screen.until(lambda: server.asked == ["run-01"], "the server starts")
        server.news.put_nowait(
            WorkbenchError("Run x trains on this machine.", "Wait until it has ended.", kind="serve")
        )
        await screen.sees("Run x trains on this machine.")
        await screen.sees("Wait until it has ended.")
