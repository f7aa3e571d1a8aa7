"""A server in a process of its own, for the app: starts it, reads what it tells, and ends it."""

import asyncio
import json
import secrets
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.serving.finished import Finished
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

PORT = 8000
_ERROR_LINES = 40
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Listening:
    """A server that listens: its base URL and port, the token that clients send, and the names that it answers to."""

    url: str
    port: int
    token: str
    models: tuple[str, ...]

    @property
    def curl(self) -> str:
        """A command that asks the first model."""
        body = json.dumps({"model": self.models[0], "messages": [{"role": "user", "content": "Hello"}]})
        return (
            f"curl {self.url}/chat/completions -H 'Authorization: Bearer {self.token}' "
            f"-H 'Content-Type: application/json' -d '{body}'"
        )


@dataclass
class ServerFigures:
    """What a server has done so far.

    Attributes:
        listening: None until it listens.
        requests: that are over. tokens, seconds: of their replies.
        running: requests that were being answered when the newest one ended.
    """

    listening: Listening | None = None
    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0
    running: int = 0
    newest: Finished | None = field(default=None)

    def take(self, news: Listening | Finished) -> None:
        """Count what the server told."""
        if isinstance(news, Listening):
            self.listening = news
            return
        self.requests += 1
        self.tokens += news.tokens
        self.seconds += news.seconds
        self.running, self.newest = news.running, news

    @property
    def words(self) -> str:
        """``3 requests, 412 tokens, 38.2 tok/s``: the speed is that of a reply, on average."""
        count = f"{self.requests:,} request{'' if self.requests == 1 else 's'}"
        if not self.seconds:
            return count
        return f"{count}, {self.tokens:,} tokens, {self.tokens / self.seconds:.1f} tok/s"


async def serve_in_background(home: Home, target: str) -> AsyncGenerator[Listening | Finished]:
    """Serve a target with ``loraworkbench serve``; yields once it listens, and then each request that is over.

    It ends when the generator is closed, or with this process's terminal.

    Raises:
        WorkbenchError: the server does not start, or ends by itself.
    """
    token = _token(home)
    command = ["-m", "workbench.cli", "--home", str(home.root), "serve", target, "--json", "--port", str(_free_port())]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        *command,
        "--token-file",
        str(token),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    reading = asyncio.ensure_future(_keep_last(process.stderr, errors))
    try:
        while line := await process.stdout.readline():
            facts = json.loads(line)
            if "url" in facts:
                port = int(facts["url"].rpartition(":")[2].partition("/")[0])
                yield Listening(facts["url"], port, token.read_text(encoding="utf-8").strip(), tuple(facts["models"]))
            else:
                yield Finished(**facts)
        await reading
        code = await process.wait()
        raise _why(errors, code)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        reading.cancel()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()


def _token(home: Home) -> Path:
    """The file with the token of the app's servers, the same for all of them; made if it is missing."""
    file = home.root / "serve-token"
    if not file.is_file():
        home.root.mkdir(parents=True, exist_ok=True)
        write_text(file, secrets.token_urlsafe(32) + "\n", private=True)
    return file


def _free_port() -> int:
    """The usual port, so that clients stay configured; 0 for any other if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


async def _keep_last(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode("utf-8", "replace").rstrip())
        del lines[:-_ERROR_LINES]


def _why(errors: list[str], code: int) -> WorkbenchError:
    """The error that the command printed: a message behind a mark, and then what to do."""
    at = next((number for number, line in enumerate(errors) if line.startswith(("✗ ", "error: "))), None)
    if at is None:
        last = errors[-1] if errors else "it printed nothing"
        return WorkbenchError(f"The server ended with code {code}: {last}", "Try `loraworkbench serve`.", kind="serve")
    message = errors[at].removeprefix("✗ ").removeprefix("error: ")
    return WorkbenchError(message, " ".join(errors[at + 1 :]).strip(), kind="serve")
