"""An engine that dies says what it died of, to whoever started it and to whoever waits for its reply."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from workbench.engine.client.home_engine import HomeEngine
from workbench.engine.client.process import engine_pid, ensure_engine, exit_code
from workbench.engine.client.protocol import Message, ReplyRequest
from workbench.errors import WorkbenchError
from workbench.storage.paths import Home


async def test_an_engine_that_cannot_be_imported_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.engine.mkdir(parents=True)
    home.engine_log.write_text("MemoryError: of an engine of yesterday\n")
    (tmp_path / "uvicorn.py").write_text("import a_package_that_is_not_here\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(WorkbenchError) as caught:
        await ensure_engine(home)
    assert caught.value.kind == "engine_start"
    assert "(exit code 1). A Python package is missing: a_package_that_is_not_here.\n" in caught.value.message
    assert "yesterday" not in caught.value.message
    assert caught.value.message.endswith("ModuleNotFoundError: No module named 'a_package_that_is_not_here'")


async def test_who_waits_for_a_reply_is_told_that_the_engine_was_killed(tmp_path: Path, tiny_llama: Path) -> None:
    engine = HomeEngine(Home(tmp_path / "home"))
    await engine.ensure()
    status = await engine.status()
    assert exit_code(status.pid) is None
    request = ReplyRequest(target=str(tiny_llama), messages=[Message(role="user", content="How do I sort a list?")])

    async def killed_in_midst() -> None:
        async for _ in engine.reply(request):
            if engine_pid(engine.home):
                os.kill(status.pid, signal.SIGKILL)

    with pytest.raises(WorkbenchError) as caught:
        await killed_in_midst()
    assert caught.value.kind == "engine_died"
    assert "SIGKILL" in caught.value.message
    assert exit_code(status.pid) == -signal.SIGKILL
    await engine.close()


async def test_another_terminal_than_the_one_that_started_it_is_told_too(tmp_path: Path, tiny_llama: Path) -> None:
    home = Home(tmp_path / "home")
    command = [sys.executable, "-m", "workbench.cli", "--home", str(home.root), "engine", "restart"]
    starter = await asyncio.create_subprocess_exec(*command)
    assert await starter.wait() == 0
    engine = HomeEngine(home)
    status = await engine.status()
    os.kill(status.pid, signal.SIGKILL)
    while engine_pid(home) is not None:
        await asyncio.sleep(0.02)
    request = ReplyRequest(target=str(tiny_llama), messages=[Message(role="user", content="Hello?")])
    with pytest.raises(WorkbenchError) as caught:
        [piece async for piece in engine.reply(request)]
    assert caught.value.kind == "engine_died"
    assert "does not say why" in caught.value.message
    await engine.close()
