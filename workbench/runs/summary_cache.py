"""Caches the summary of a journal beside it, so that a long journal is read only once, and later only its new part.

The journal stays the source of truth. The cache states how many bytes of the journal it covers, with a checksum of the
last ones. If they no longer match, or the cache is unreadable, the journal is read again from the start.
"""

import zlib
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

import msgspec

from workbench import __version__
from workbench.runs.summary import RunSummary
from workbench.storage.atomic import write_text

# Raise the number when the meaning of a summary's fields changes.
_VERSION = f"6 of {__version__}"

# The last bytes that the cache covers: they contain event times, which no other journal has.
_CHECKED_BYTES = 1 << 12


class _CacheFile(msgspec.Struct):
    form: str
    offset: int
    check: int
    summary: dict[str, object]


def read_cached_summary(journal: Path) -> tuple[RunSummary, int]:
    """The cached summary and the number of journal bytes it covers; an empty summary and 0 without a valid cache."""
    with suppress(OSError, ValueError, msgspec.MsgspecError):
        cache = msgspec.json.decode(_cache_file(journal).read_bytes(), type=_CacheFile)
        is_complete = cache.summary.keys() == {field.name for field in fields(RunSummary)}
        if cache.form == _VERSION and is_complete and cache.check == _checksum(journal, cache.offset):
            return msgspec.convert(cache.summary | {"id": journal.parent.name}, RunSummary), cache.offset
    return RunSummary(journal.parent.name), 0


def write_cached_summary(journal: Path, summary: RunSummary, offset: int) -> None:
    """Cache the summary of the first ``offset`` bytes, as it is before :meth:`RunSummary.settle`.

    Does nothing in a read-only folder.
    """
    with suppress(OSError):
        cache = _CacheFile(_VERSION, offset, _checksum(journal, offset), asdict(summary))
        write_text(_cache_file(journal), msgspec.json.encode(cache).decode(), private=True)  # as the journal


def _cache_file(journal: Path) -> Path:
    return journal.with_name(".summary.json")


def _checksum(journal: Path, offset: int) -> int:
    with journal.open("rb") as file:
        start = max(0, offset - _CHECKED_BYTES)
        file.seek(start)
        data = file.read(offset - start)
    if len(data) < offset - start:
        raise ValueError("the journal is shorter than it was")
    return zlib.crc32(data)
