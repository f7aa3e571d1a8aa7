"""Replies on their way as in the engine: over its socket, to another process that reads them.

``python -m bench.streamed HOME`` is that other process.
"""

import asyncio
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from workbench.engine.client.client import EngineClient
from workbench.engine.client.protocol import Message, ReplyPiece, ReplyRequest
from workbench.engine.daemon.api import Api
from workbench.errors import WorkbenchError
from workbench.storage.paths import Home, private_folder


class Asked(NamedTuple):
    """A reply that somebody waits for: where its pieces go, and what is called after the last one."""

    emit: Callable[[ReplyPiece], None]
    finished: Callable[[WorkbenchError | None], None]


class _Answering:
    """What the API asks for replies: they are made by whoever takes them out of ``asked``."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.asked: queue.Queue[Asked] = queue.Queue()

    def reply(self, request: ReplyRequest, emit: Any, finished: Any) -> Callable[[], None]:
        self.asked.put(Asked(emit, finished))
        return lambda: None


@contextmanager
def a_reader() -> Iterator[Callable[[], Asked]]:
    """Within, a process asks for one reply after the other; what is given waits for the next time it does."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        answering = _Answering(home)
        private_folder(home.engine)
        api = Api(answering)  # type: ignore[arg-type]
        server = uvicorn.Server(uvicorn.Config(api.app(), uds=str(home.socket), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        reader = subprocess.Popen([sys.executable, "-m", "bench.streamed", folder])
        try:
            yield answering.asked.get
        finally:
            reader.terminate()
            reader.wait()
            server.should_exit = True
            thread.join()


async def _read(home: Home) -> None:
    client = EngineClient(home)
    request = ReplyRequest(target="", messages=[Message(role="user", content="Go on.")])
    while True:
        try:
            async for _ in client.reply(request):
                pass
        except WorkbenchError:  # it does not listen yet
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(_read(Home(Path(sys.argv[1]))))
