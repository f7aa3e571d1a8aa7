"""Samples a long journal quickly: its beginning, its end and lines spread over the middle, whatever its length."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workbench.runs.events import AnyEvent, decode
from workbench.runs.journal import BLOCK

LONG = 16 * BLOCK
"""Bytes of a journal that take too long to read while the user waits: about 35,000 steps."""

PLACES = 512
"""Number of places in the middle to sample: about as many as a wide terminal has columns of dots."""

_HEAD = BLOCK // 4
_TAIL = 4 * BLOCK
_AT_LEAST = BLOCK // 16
_PAGE = 1 << 12
_LONGEST_LINE = BLOCK


class JournalSample(NamedTuple):
    """Events sampled from a journal.

    Attributes:
        head: the first events, without gaps.
        middle: events from evenly spaced places, in order.
        tail: the last events, without gaps. They include a step; also the last evaluation and the last resume, unless
            these are far back.
        end: bytes up to the end of the last line.
    """

    head: list[AnyEvent]
    middle: list[AnyEvent]
    tail: list[AnyEvent]
    end: int


def is_long(journal: Path, offset: int = 0) -> bool:
    """Whether the part of a journal after ``offset`` bytes takes too long to read while the user waits."""
    try:
        return journal.stat().st_size - offset > LONG
    except OSError:
        return False


def sample_journal(journal: Path, places: int = PLACES) -> JournalSample:
    """Sample a journal.

    Args:
        places: how many places of the middle to sample. All complete lines in a disk page are taken, as reading one
            costs as much as reading the page.

    Raises:
        OSError: the journal cannot be read.
    """
    with journal.open("rb", buffering=0) as file:
        disk = file.fileno()
        first = os.pread(disk, _HEAD, 0)
        first = first[: first.rfind(b"\n") + 1]
        start, last = _tail(disk, len(first))
        middle = [event for page in _pages(disk, len(first), start, places) for event in _events(page)]
    return JournalSample(_events(first), middle, _events(last), start + len(last))


def _tail(disk: int, after: int) -> tuple[int, bytes]:
    """The last lines, and the offset they begin at.

    They reach back to the last step, and to the last evaluation and the last resume unless these are far back.
    """
    size, length = os.fstat(disk).st_size, _TAIL
    while True:
        begin = max(after, size - length)
        data = os.pread(disk, size - begin, begin)
        data = data[: data.rfind(b"\n") + 1]
        last_events = [data.rfind(b'"event":"%s"' % kind) for kind in (b"step", b"eval", b"run_resumed")]
        # The first line may be incomplete.
        first = 0 if begin == after else data.find(b"\n") + 1
        if last_events[0] >= first or begin == after:
            break
        length *= 4
    start = min([at for at in last_events if at >= first] + [max(first, len(data) - _AT_LEAST)])
    start = max(first, data.rfind(b"\n", 0, start) + 1)
    return begin + start, data[start:]


def _pages(disk: int, start: int, end: int, places: int) -> Iterator[bytes]:
    """The complete lines in a page at each of ``places`` places between two offsets, both at the start of a line."""
    reached = start
    for number in range(places):
        # Read from one byte earlier, so that a line beginning exactly there counts as complete.
        at = max(reached, start + (end - start) * (2 * number + 1) // (2 * places)) - 1
        data, length = b"", _PAGE
        while at >= 0 and at < end - 1 and data.count(b"\n", 0) < 2 and length <= _LONGEST_LINE:
            data = os.pread(disk, min(length, end - at), at)
            if len(data) < length:
                break
            length *= 8
        first, last = data.find(b"\n") + 1, data.rfind(b"\n") + 1
        if last > first:
            reached = at + last
            yield data[first:last]


def _events(data: bytes) -> list[AnyEvent]:
    return [event for line in data.splitlines() if (event := decode(line)) is not None]
