"""Connects the engine with the processes that ``accelerate launch`` started: lines of JSON on a private Unix socket.

Each process sends its rank and id when it connects, and its error when it fails. The first one also sends the run's
progress, and receives the user's requests. A broken connection means that the other side died: the engine learns which
process it was, and a process whose engine died exits at once, as a training thread in the engine would have.
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
from typing import Literal, TypedDict

import psutil

from workbench.engine.client.protocol import ControlAction
from workbench.engine.steering.controls import Command, Controls
from workbench.engine.training.training import Training
from workbench.errors import ErrorData, WorkbenchError
from workbench.progress import Progress

# Exit code of a process whose engine died.
ENGINE_GONE = 4
_SEND_SECONDS = 0.2
_CHUNK = 65536


class Message(TypedDict, total=False):
    """What the two sides send each other.

    From a process: ``rank``, ``pid`` and ``started`` first; then ``progress`` and ``paused`` of the run, from the first
    process only; last ``failed``, its error, or ``done``. To the first process: ``stop``, with whether to save, or a
    command as ``action``, ``value`` and ``release``.
    """

    rank: int
    pid: int
    started: float
    progress: dict[str, object] | None
    paused: str
    failed: ErrorData
    done: bool
    stop: bool
    action: ControlAction | Literal["task"]
    value: float | None
    release: bool


class Connection:
    """One end of a connection that sends and receives JSON objects."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""

    def send(self, message: Message) -> None:
        """Send an object. Raises nothing if the other end is gone: :meth:`read` does."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self, seconds: float) -> Iterator[Message]:
        """The objects received within this time.

        Raises:
            EOFError: the other end is gone.
        """
        if not select.select([self.socket], [], [], seconds)[0]:
            return
        try:
            data = self.socket.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            raise EOFError
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield json.loads(line)


class EngineLink:
    """The end of a training process; a thread receives requests and sends progress."""

    def __init__(self, path: Path, rank: int) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(path))
        self._connection = Connection(connection)
        self._training: Training | None = None
        self._sent: Message = {}
        self._connection.send({"rank": rank, "pid": os.getpid(), "started": psutil.Process().create_time()})
        threading.Thread(target=self._run, name="engine link", daemon=True).start()

    def follow(self, training: Training) -> None:
        """From now on pass requests to this training, and send its progress if this is the first process."""
        self._training = training

    def report_failure(self, error: WorkbenchError) -> None:
        """Send the error that ended this process."""
        self._connection.send({"failed": error.as_json()})

    def report_done(self) -> None:
        """Send that this process has finished."""
        self._connection.send({"done": True})

    def _run(self) -> None:
        while True:
            try:
                for message in self._connection.read(_SEND_SECONDS):
                    assert self._training is not None  # the engine sends requests only after the first progress
                    apply_message(message, self._training.controls.local)
            except EOFError:
                os._exit(ENGINE_GONE)
            if self._training is not None and self._training.ranks.is_first:
                self._send_state(self._training)

    def _send_state(self, training: Training) -> None:
        """Send progress and pause if they have changed."""
        progress = training.progress
        state: Message = {
            "progress": progress.model_dump() if progress else None,
            "paused": training.controls.paused or training.controls.local.paused,
        }
        if state != self._sent:
            self._sent = state
            self._connection.send(state)


def apply_message(message: Message, controls: Controls) -> None:
    """Pass a request from the engine to the controls of a run."""
    if "stop" in message:
        controls.stop(save=bool(message["stop"]))
    else:
        controls.send(Command(message["action"], message["value"], message["release"]))


class Peer:
    """The engine's end of the connection to one training process, and what that process sent last.

    Attributes:
        rank: its rank; -1 before it has sent it.
        accepts_requests: it is the first process, and ready for requests.
        failed: the error that ended it.
        is_done: it has finished.
        lost: time (monotonic) at which its connection broke.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = Connection(connection)
        self.rank = -1
        self.process: psutil.Process | None = None
        self.progress: Progress | None = None
        self.paused = ""
        self.accepts_requests = False
        self.failed: WorkbenchError | None = None
        self.is_done = False
        self.lost: float | None = None

    @property
    def is_open(self) -> bool:
        return self.lost is None

    def receive(self) -> None:
        """Process the messages that have arrived."""
        try:
            for message in self.connection.read(0):
                self._process(message)
        except EOFError:
            self.lost = time.monotonic()
            self.connection.socket.close()

    def _process(self, message: Message) -> None:
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
            self.accepts_requests = True
            self.progress = Progress.model_validate(message["progress"]) if message["progress"] else None
            self.paused = message["paused"]

    def send(self, command: Command) -> None:
        """Send a request of the user's."""
        self.connection.send({"action": command.action, "value": command.value, "release": command.release})

    def stop(self, *, save: bool) -> None:
        """Send a stop request."""
        self.connection.send({"stop": save})
