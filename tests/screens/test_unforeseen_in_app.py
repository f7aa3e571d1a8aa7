"""What nobody foresaw: of a worker it is shown in a dialog, and the app lives on; anywhere else it ends the app."""

from pathlib import Path

import pytest

from screens.dialogs.questions import ErrorDialog
from screens.shell.unforeseen import Unforeseen
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


def _fail() -> None:
    raise AttributeError(WORDS)


async def test_any_other_failure_ends_the_app_with_a_sentence(tmp_path: Path) -> None:
    async def session() -> None:
        async with opened(tmp_path) as screen:
            screen.app.call_later(_fail)
            await screen.until(lambda: not screen.app.is_running, "the end")
            screen.app.faults.clear()

    with pytest.raises(Unforeseen, match="loraworkbench failed while showing the tab Models") as caught:
        await session()
    assert isinstance(caught.value.__cause__, AttributeError)
    assert WORDS in caught.value.__rich__().plain


def _said(screen: Opened) -> str:
    dialog = screen.app.screen
    assert isinstance(dialog, ErrorDialog)
    return str(dialog._error)
