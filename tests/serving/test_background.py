"""A server as the app starts it: a process of its own that tells what it does."""

import asyncio
import stat
from contextlib import aclosing

import httpx
import pytest

from tests.engine.voices_of_tiny import save_random_adapter
from workbench.errors import WorkbenchError
from workbench.serving.background import Listening, ServerFigures, serve_in_background
from workbench.serving.finished import Finished
from workbench.storage.paths import Home


async def test_it_answers_with_its_key_and_ends_with_the_generator(tiny_llama, tmp_path):
    home = Home(tmp_path / "home")
    adapter = save_random_adapter(tiny_llama, tmp_path / "pirate", 1)
    figures = ServerFigures()
    async with aclosing(serve_in_background(home, str(adapter))) as news:
        listening = await anext(news)
        assert isinstance(listening, Listening)
        figures.take(listening)
        assert listening.models == ("pirate", "tiny-llama")
        assert stat.S_IMODE((home.root / "serve-token").stat().st_mode) == 0o600
        body = {"model": "pirate", "messages": [{"role": "user", "content": "Ahoy?"}], "max_tokens": 3}
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"{listening.url}/chat/completions"
            assert (await client.post(url, json=body)).status_code == 401
            answer = await client.post(url, json=body, headers={"Authorization": f"Bearer {listening.token}"})
        assert answer.status_code == 200, answer.text
        async for one in news:
            assert isinstance(one, Finished)
            figures.take(one)
            if one.tokens:
                break
    assert figures.tokens == answer.json()["usage"]["completion_tokens"]
    assert "tok/s" in figures.words
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", listening.port)


async def test_a_server_that_does_not_start_says_why(tmp_path):
    with pytest.raises(WorkbenchError, match="nowhere") as refused:
        async for _ in serve_in_background(Home(tmp_path), "/nowhere/adapter"):
            pass
    assert refused.value.cure
