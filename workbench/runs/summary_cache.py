"""What was added up of a journal, kept beside it: a long one is read once, and later only what was added to it.

The journal stays the truth. What is kept holds for the bytes that it was made of, of which it has the number and a
checksum of the last ones; where they are not there any more, or anything else is odd, the journal is read again.
"""

import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.storage.atomic import write_text

# Changes with the meaning of what is kept.
_FORM = f"2 of {__version__}"

# The last bytes that are looked at: they hold the times of some events, which no other journal has.
_LOOKED_AT = 1 << 12


def kept(journal: Path) -> tuple[dict[str, Any], int]:
    """What was kept, and how many bytes of the journal it is of; nothing of 0 bytes where there is none."""
    try:
        value = json.loads(_file(journal).read_bytes())
        sums, offset = value["sums"], value["offset"]
        if value["form"] == _FORM and isinstance(sums, dict) and value["check"] == _check(journal, offset):
            return sums, offset
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}, 0


def keep(journal: Path, sums: dict[str, Any], offset: int) -> None:
    """Keep what was added up of the first ``offset`` bytes. Where the folder cannot be written to, nothing is kept."""
    with suppress(OSError):
        value = {"form": _FORM, "offset": offset, "check": _check(journal, offset), "sums": sums}
        write_text(_file(journal), json.dumps(value), private=True)  # as the journal


def _file(journal: Path) -> Path:
    return journal.with_name(".summary.json")


def _check(journal: Path, offset: int) -> int:
    with journal.open("rb") as file:
        start = max(0, offset - _LOOKED_AT)
        file.seek(start)
        data = file.read(offset - start)
    if len(data) < offset - start:
        raise ValueError("the journal is shorter than it was")
    return zlib.crc32(data)
