"""Writes and reads a run's journal: an append-only file of JSON lines, one event per line.

The process that trains appends; screens and commands read. A line is complete or absent: it is written with one
``write`` that ends in a newline, readers ignore what follows the last newline, and a writer that opens a journal after
a crash truncates such a fragment.
"""

import errno
import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from workbench.errors import WorkbenchError
from workbench.runs.events import AnyEvent, Checkpoint, RunEnded, RunError, RunStarted, decode, to_fields

BLOCK = 1 << 17
"""Bytes that :meth:`JournalReader.blocks` reads at a time: some 300 events, about a millisecond of work."""

# Written with fsync: readers may rely on these events even after a crash.
_SYNCED = (RunStarted, Checkpoint, RunError, RunEnded)


def _replace_non_finite(value: object) -> object:
    """Replace NaN and infinities by text: JSON does not have them, so other programs could not read the journal."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    return value


class JournalWriter:
    """Appends events to a journal. May be used from several threads.

    Raises:
        WorkbenchError: another process is writing the journal.
        OSError: the folder is missing or the disk is full; a partly written line is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock_file()
        end, seq = _find_end(path)
        self._seq = seq + 1  # of the next event
        os.ftruncate(self._file, end)

    def _lock_file(self) -> None:
        """Keep other processes from writing; the system releases the lock when this process ends."""
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
    def has_events(self) -> bool:
        """Whether the journal has any event."""
        return self._seq > 0

    def write(self, event: AnyEvent) -> None:
        """Append an event with the next number and the current time."""
        with self._lock:
            numbered = msgspec.structs.replace(event, seq=self._seq, time=round(time.time(), 3))
            fields = _replace_non_finite(to_fields(numbered))
            line = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
            data = line.encode("utf-8", "backslashreplace")
            size = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, data)
                if written != len(data):
                    raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
                if isinstance(event, _SYNCED):
                    os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
            self._seq += 1

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JournalReader:
    """Follows a journal: each :meth:`read` returns the events that were added since the previous call.

    A journal that does not exist yet reads as empty. A line that is not an event is skipped and counted in
    ``damaged``.

    Args:
        path: the journal.
        offset: the byte at which the first line to read begins.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.damaged = 0

    @classmethod
    def from_end(cls, path: Path) -> Self:
        """Create a reader of the events that are added from now on."""
        return cls(path, _find_end(path)[0] if path.is_file() else 0)

    def read(self, max_bytes: int | None = None) -> list[AnyEvent]:
        """Read the events added since the previous call; returns an empty list at the end.

        Args:
            max_bytes: bytes to read at most, to limit memory on long journals; a longer line is still read completely.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(-1 if max_bytes is None else max_bytes)
                while max_bytes is not None and b"\n" not in data and (more := file.read(max_bytes)):
                    data += more
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self.offset += end
        events = [decode(line) for line in data[:end].splitlines()]
        self.damaged += events.count(None)
        return [event for event in events if event is not None]

    def blocks(self) -> Iterator[list[AnyEvent]]:
        """Read up to the end of the journal, one block of events at a time to limit memory."""
        while True:
            before = self.offset
            events = self.read(BLOCK)
            if self.offset == before:
                return
            yield events
            # The thread of the screen may wait for the interpreter: Python would let it wait 5 ms.
            time.sleep(0)


def each_event(path: Path) -> Iterator[AnyEvent]:
    """Iterate over the events of a journal, reading a block at a time to limit memory."""
    for events in JournalReader(path).blocks():
        yield from events


def last_seq(path: Path) -> int:
    """The number of a journal's last event, -1 if it has none; reads only the end of the file."""
    try:
        return _find_end(path)[1]
    except FileNotFoundError:
        return -1


def _find_end(path: Path) -> tuple[int, int]:
    """The size of the complete lines in bytes, and the number of the last event, -1 if there is none.

    Reads backwards from the end of the file, only as far as needed.
    """
    with path.open("rb") as file:
        size = start = file.seek(0, os.SEEK_END)
        length = 1 << 16
        while True:
            start = max(0, size - length)
            file.seek(start)
            data = file.read(size - start)
            end = data.rfind(b"\n") + 1
            # Unless read from the start of the file, the first line may be incomplete.
            first_line = data.find(b"\n") + 1 if start else 0
            for line in reversed(data[first_line:end].splitlines()):
                if event := decode(line):
                    return start + end, event.seq
            if not start:
                return end, -1
            length *= 8
