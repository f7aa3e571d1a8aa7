"""A long journal at a glance: its beginning, its end, lines from all over it, in a time that does not grow with it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workbench.runs.events import AnyEvent, decode
from workbench.runs.journal import BLOCK

LONG = 16 * BLOCK
"""Bytes of a journal that take too long to be read while somebody waits: some 35,000 steps."""

PLACES = 512
"""Places that lines are taken from: about as many as a wide terminal has columns of dots."""

_HEAD = BLOCK // 4
_TAIL = 4 * BLOCK
_AT_LEAST = BLOCK // 16
_PAGE = 1 << 12
_LONGEST_LINE = BLOCK


class Glance(NamedTuple):
    """What was seen of a journal.

    Attributes:
        head: its first events, none left out.
        between: events from places that are equally far apart, in their order.
        tail: its last events, none left out. A step is among them; so are the last evaluation and the last time that
            it was resumed, where they are not far back.
        end: bytes up to the end of the last line.
    """

    head: list[AnyEvent]
    between: list[AnyEvent]
    tail: list[AnyEvent]
    end: int


def unread(journal: Path, offset: int = 0) -> int:
    """Bytes of a journal after the first ``offset`` ones."""
    try:
        return max(0, journal.stat().st_size - offset)
    except OSError:
        return 0


def is_long(journal: Path, known: int = 0) -> bool:
    """Whether it takes too long to read what comes after the first ``known`` bytes."""
    return unread(journal, known) > LONG


def glance(journal: Path, places: int = PLACES) -> Glance:
    """Look at a journal.

    Args:
        places: how many places between beginning and end are looked at. From each come as many whole lines as are in a
            page of the disk, for one costs as much as all of them.

    Raises:
        OSError: it cannot be read.
    """
    with journal.open("rb", buffering=0) as file:
        disk = file.fileno()
        first = os.pread(disk, _HEAD, 0)
        first = first[: first.rfind(b"\n") + 1]
        start, last = _tail(disk, len(first))
        between = [event for page in _pages(disk, len(first), start, places) for event in _events(page)]
    return Glance(_events(first), between, _events(last), start + len(last))


def _tail(disk: int, after: int) -> tuple[int, bytes]:
    """The last lines and where they begin: from the last step on; from the last evaluation and the last time that it
    was resumed, where they are not far."""
    size, reach = os.fstat(disk).st_size, _TAIL
    while True:
        begin = max(after, size - reach)
        data = os.pread(disk, size - begin, begin)
        data = data[: data.rfind(b"\n") + 1]
        found = [data.rfind(b'"event":"%s"' % kind) for kind in (b"step", b"eval", b"run_resumed")]
        # Before the first newline may be the rest of a line.
        first = 0 if begin == after else data.find(b"\n") + 1
        if found[0] >= first or begin == after:
            break
        reach *= 4
    here = min([at for at in found if at >= first] + [max(first, len(data) - _AT_LEAST)])
    here = max(first, data.rfind(b"\n", 0, here) + 1)
    return begin + here, data[here:]


def _pages(disk: int, start: int, end: int, places: int) -> Iterator[bytes]:
    """Whole lines from each place between two beginnings of lines."""
    reached = start
    for number in range(places):
        # One byte before a line, so that a line that begins at the very place counts as whole.
        at = max(reached, start + (end - start) * (2 * number + 1) // (2 * places)) - 1
        data, wanted = b"", _PAGE
        while at >= 0 and at < end - 1 and data.count(b"\n", 0) < 2 and wanted <= _LONGEST_LINE:
            data = os.pread(disk, min(wanted, end - at), at)
            if len(data) < wanted:
                break
            wanted *= 8
        first, last = data.find(b"\n") + 1, data.rfind(b"\n") + 1
        if last > first:
            reached = at + last
            yield data[first:last]


def _events(data: bytes) -> list[AnyEvent]:
    return [event for line in data.splitlines() if (event := decode(line)) is not None]
