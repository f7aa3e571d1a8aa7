"""The journal: the truth about a run, one JSON object a line, appended by whoever trains, read by whoever looks.

A line is whole or absent: it goes to the file in one ``write`` that ends in a newline, a reader ignores what follows
the last newline, and a writer that opens a journal after a crash cuts such a rest off.
"""

import fcntl
import json
import math
import os
import threading
import time
from pathlib import Path
from typing import Any, Self

from workbench.errors import WorkbenchError

Event = dict[str, Any]

# Events after which a reader may believe that what they name is on disk.
_DURABLE = {"run_started", "checkpoint", "error", "run_ended"}


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity; a journal that holds one could not be read elsewhere."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class JournalWriter:
    """Appends events. Safe to call from several threads.

    Raises:
        WorkbenchError: another process has it open for writing.
        OSError: the folder is missing or the disk is full; a partly written line is taken back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._claim()
        whole, self._seq = _whole_part(path)
        os.ftruncate(self._file, whole)

    def _claim(self) -> None:
        """Nobody else may write while this one is open; the system lets go of it when the process dies."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise WorkbenchError(
                f"Another process is writing {self.path}.", "Wait for its run to end, or stop it.", kind="run_busy"
            ) from None
        except OSError:
            pass  # a file system without locks

    @property
    def is_continued(self) -> bool:
        """Whether there is any event in it."""
        return self._seq > 0

    def write(self, event: str, **fields: Any) -> Event:
        """Append ``{"seq", "time", "event", **fields}`` and return it. ``time`` is Unix time in seconds."""
        with self._lock:
            entry: Event = {"seq": self._seq, "time": round(time.time(), 3), "event": event, **_finite(fields)}
            line = json.dumps(entry, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
            data = line.encode("utf-8", "backslashreplace")
            before = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, data)
                if written != len(data):
                    raise OSError(28, "No space left on device", str(self.path))
            except OSError:
                os.ftruncate(self._file, before)
                raise
            if event in _DURABLE:
                os.fsync(self._file)
            self._seq += 1
            return entry

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JournalReader:
    """Follows a journal: each :meth:`read` gives the events that were added since the last one.

    A journal that does not exist yet reads as empty. A line that is no JSON object is skipped and counted in
    ``damaged``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._offset = 0

    def read(self, most: int | None = None) -> list[Event]:
        """The events added since the last call; nothing once the end is reached.

        Args:
            most: bytes to take at a time, so that a long journal need not be held as a whole. A line that is longer is
                taken whole.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(-1 if most is None else most)
                while most is not None and b"\n" not in data and (more := file.read(most)):
                    data += more
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        events = [_event(line) for line in data[:whole].splitlines()]
        self.damaged += events.count(None)
        return [event for event in events if event is not None]


def read_events(path: Path) -> list[Event]:
    """All whole events of a journal, in order."""
    return JournalReader(path).read()


def _event(line: bytes) -> Event | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _whole_part(path: Path) -> tuple[int, int]:
    """Bytes up to the last newline, and the sequence number that comes next."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    for line in reversed(data[:whole].splitlines()):
        if event := _event(line):
            return whole, int(event.get("seq", -1)) + 1
    return whole, 0
