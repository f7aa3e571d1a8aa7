"""What nobody foresaw in a worker of the app: told in a dialog, written to the log, and the app lives on."""

from pathlib import Path

import pytest

from screens.shell.dialogs import ErrorDialog
from tests.screens.piloting import Opened, opened

WORDS = "'NoneType' object has no attribute 'split'"


async def _raising() -> None:
    raise AttributeError(WORDS)


@pytest.mark.parametrize("guarded", [True, False], ids=["attempted", "of its own"])
async def test_a_worker_that_fails_is_told_and_the_app_lives_on(tmp_path: Path, guarded: bool) -> None:
    async with opened(tmp_path) as screen:
        if guarded:
            screen.app.attempt(_raising())
        else:
            screen.app.run_worker(_raising())
        await screen.until(lambda: isinstance(screen.app.screen, ErrorDialog), "the dialog")
        assert "loraworkbench failed while showing the tab Models" in _said(screen)
        assert f"AttributeError: {WORDS}" in _said(screen)
        assert "loraworkbench doctor" in _said(screen)
        log = screen.app.session.home.terminal_log
        assert str(log) in _said(screen)
        assert f"AttributeError: {WORDS}" in log.read_text(encoding="utf-8")
        await screen.press("escape")
        assert not isinstance(screen.app.screen, ErrorDialog)
        await screen.tab("train")
        screen.app.faults.clear()


def _said(screen: Opened) -> str:
    dialog = screen.app.screen
    assert isinstance(dialog, ErrorDialog)
    return str(dialog._error)
