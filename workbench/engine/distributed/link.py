"""Between the engine and the processes it had ``accelerate launch`` start: lines of JSON on a private Unix socket.

Each process says who it is when it comes, and what it failed of when it goes. The first one also tells how far the run
has come, and hears what the user wants. When the line breaks the other side is gone: the engine learns which process
died, and a process whose engine is gone ends at once, as the engine's own thread would have.
"""

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from workbench.engine.steering.controls import Command, Controls
from workbench.engine.training.training import Training
from workbench.errors import WorkbenchError
from workbench.progress import Progress

# Exit code of a process whose engine is gone.
ENGINE_GONE = 4
_TOLD_SECONDS = 0.2
_CHUNK = 65536


class Line:
    """One end of a connection: objects go out at once, and come in when they are whole."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""

    def send(self, **message: Any) -> None:
        """Nothing is raised when the other end is gone: that is noticed on reading."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What has come in, waited for no longer than that.

        Raises:
            EOFError: the other end is gone.
        """
        if not select.select([self.connection], [], [], seconds)[0]:
            return
        try:
            data = self.connection.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield json.loads(line)


class EngineLink:
    """A process's end, kept in a thread of its own."""

    def __init__(self, path: Path, rank: int) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(path))
        self._line = Line(connection)
        self._training: Training | None = None
        self._told: dict[str, Any] = {}
        self._line.send(rank=rank, pid=os.getpid(), started=psutil.Process().create_time())
        threading.Thread(target=self._keep, name="engine link", daemon=True).start()

    def follow(self, training: Training) -> None:
        """From now on tell how it goes, if this is the first process, and hand on what it is to do."""
        self._training = training

    def say_failed(self, error: WorkbenchError) -> None:
        """What this process ends of."""
        self._line.send(failed=error.as_json())

    def say_done(self) -> None:
        """This process ends as it should."""
        self._line.send(done=True)

    def _keep(self) -> None:
        while True:
            try:
                for message in self._line.read(_TOLD_SECONDS):
                    assert self._training is not None  # the engine waits for what is told first
                    obey(message, self._training.controls.local)
            except EOFError:
                os._exit(ENGINE_GONE)
            if self._training is not None and self._training.ranks.is_first:
                self._tell(self._training)

    def _tell(self, training: Training) -> None:
        progress = training.progress
        state = {
            "progress": progress.model_dump() if progress else None,
            "paused": training.controls.paused or training.controls.local.paused,
        }
        if state != self._told:
            self._told = state
            self._line.send(**state)


def obey(message: dict[str, Any], controls: Controls) -> None:
    """Give what the engine sent to the controls of a run."""
    if "stop" in message:
        controls.stop(save=bool(message["stop"]))
    else:
        controls.send(Command(message["action"], message["value"], message["release"]))


class Peer:
    """The engine's view of one process: who it is, what it told last, and when its line broke.

    ``listens``: it is the first one, and takes orders.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.line = Line(connection)
        self.rank = -1
        self.process: psutil.Process | None = None
        self.progress: Progress | None = None
        self.paused = ""
        self.listens = False
        self.failed: WorkbenchError | None = None
        self.is_done = False
        self.lost: float | None = None

    @property
    def is_open(self) -> bool:
        return self.lost is None

    def hear(self) -> None:
        """Take what has come in."""
        try:
            for message in self.line.read(0):
                self._take(message)
        except EOFError:
            self.lost = time.monotonic()
            self.line.connection.close()

    def _take(self, message: dict[str, Any]) -> None:
        if "rank" in message:
            self.rank = int(message["rank"])
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(int(message["pid"]))
                if abs(process.create_time() - message["started"]) < 1:
                    self.process = process
        elif "failed" in message:
            self.failed = WorkbenchError.from_json(message["failed"])
        elif "done" in message:
            self.is_done = True
        else:
            self.listens = True
            self.progress = Progress.model_validate(message["progress"]) if message["progress"] else None
            self.paused = message["paused"]

    def give(self, command: Command) -> None:
        self.line.send(action=command.action, value=command.value, release=command.release)

    def stop(self, *, save: bool) -> None:
        self.line.send(stop=save)
