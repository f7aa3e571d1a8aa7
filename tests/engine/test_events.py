"""Replies on their way over the engine's socket."""

import asyncio

from tests.engine.test_process import question
from workbench.engine.client.client import EngineClient
from workbench.engine.client.protocol import ReplyPiece
from workbench.engine.daemon.api import Api
from workbench.engine.daemon.engine import Engine
from workbench.progress import Progress
from workbench.storage.paths import private_folder

# U+2028, U+0085 and others end a line for Python, and none in an event.
PIECES = [
    ReplyPiece(prompt_tokens=9),
    *(ReplyPiece(text=text) for text in ("\u2028", "a\x85b\n\r\x0b", "ж 語 🙂", " ")),
]


async def test_events_arrive_as_they_were_sent(home, monkeypatch):
    import uvicorn

    sent = [Progress(phase="loading", fraction=0.5), *PIECES, ReplyPiece(done=True, reason="end", tokens=4)]

    def reply(request, emit, finished):
        for event in sent:
            emit(event)
        finished(None)
        return lambda: None

    engine = Engine(home)
    monkeypatch.setattr(engine, "reply", reply)
    private_folder(home.engine)
    server = uvicorn.Server(uvicorn.Config(Api(engine).app(), uds=str(home.socket), lifespan="off"))
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
        client = EngineClient(home)
        assert [event async for event in client.reply(question("any"))] == sent
        await client.close()
        server.should_exit = True
        await running
