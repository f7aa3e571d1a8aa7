"""The journal: the truth about a run, one event a line, appended by whoever trains, read by whoever looks.

A line is whole or absent: it goes to the file in one ``write`` that ends in a newline, a reader ignores what follows
the last newline, and a writer that opens a journal after a crash cuts such a rest off.
"""

import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from workbench.errors import WorkbenchError
from workbench.runs.events import AnyEvent, Checkpoint, RunEnded, RunError, RunStarted, decode, to_fields

# A megabyte is some 2,000 events, which are taken in within a few milliseconds.
BLOCK = 1 << 20

# Events after which a reader may believe that what they name is on disk.
_DURABLE = (RunStarted, Checkpoint, RunError, RunEnded)


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
        whole, last = _end_of(path)
        self._seq = last + 1
        os.ftruncate(self._file, whole)

    def _claim(self) -> None:
        """Nobody else may write while this one is open; the system lets go of it when the process dies."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise WorkbenchError(
                f"Another process is writing {self.path}.", "Wait until its run ends, or stop it.", kind="run_busy"
            ) from None
        except OSError:
            pass  # a file system without locks

    @property
    def is_continued(self) -> bool:
        """Whether there is any event in it."""
        return self._seq > 0

    def write(self, event: AnyEvent) -> None:
        """Append an event, with its number and the time."""
        with self._lock:
            numbered = msgspec.structs.replace(event, seq=self._seq, time=round(time.time(), 3))
            entry = _finite(to_fields(numbered))
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
            if isinstance(event, _DURABLE):
                os.fsync(self._file)
            self._seq += 1

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

    Args:
        path: the journal.
        offset: bytes that are known already; a line begins there.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.damaged = 0

    @classmethod
    def of_what_comes(cls, path: Path) -> Self:
        """A reader of what is added from now on."""
        return cls(path, _end_of(path)[0] if path.is_file() else 0)

    def read(self, most: int | None = None) -> list[AnyEvent]:
        """The events added since the last call; nothing once the end is reached.

        Args:
            most: bytes to take at a time, so that a long journal need not be held as a whole. A line that is longer is
                taken whole.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(-1 if most is None else most)
                while most is not None and b"\n" not in data and (more := file.read(most)):
                    data += more
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        events = [decode(line) for line in data[:whole].splitlines()]
        self.damaged += events.count(None)
        return [event for event in events if event is not None]

    def blocks(self) -> Iterator[list[AnyEvent]]:
        """The events up to the end, a block at a time: a long journal is never held as a whole."""
        while True:
            before = self.offset
            events = self.read(BLOCK)
            if self.offset == before:
                return
            yield events


def each_event(path: Path) -> Iterator[AnyEvent]:
    """The whole events of a journal, in order; a long one is never held as a whole."""
    for events in JournalReader(path).blocks():
        yield from events


def read_events(path: Path) -> list[AnyEvent]:
    """All whole events of a journal, in order."""
    return JournalReader(path).read()


def last_seq(path: Path) -> int:
    """Number of a journal's last event, -1 where there is none; however long it is, its end is enough."""
    try:
        return _end_of(path)[1]
    except FileNotFoundError:
        return -1


def _end_of(path: Path) -> tuple[int, int]:
    """Bytes up to the last newline, and the number of the last event; read from the end, as far as needed."""
    with path.open("rb") as file:
        size = start = file.seek(0, os.SEEK_END)
        reach = 1 << 16
        while True:
            start = max(0, size - reach)
            file.seek(start)
            data = file.read(size - start)
            whole = data.rfind(b"\n") + 1
            # What comes before the first newline may be the rest of a line.
            first = data.find(b"\n") + 1 if start else 0
            for line in reversed(data[first:whole].splitlines()):
                if event := decode(line):
                    return start + whole, event.seq
            if not start:
                return whole, -1
            reach *= 8
