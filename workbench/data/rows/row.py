"""One row of a local file, where it stands, and the file's bytes, uncompressed."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import WorkbenchError

# A line or value longer than this is no record; reading it whole could fill the memory.
LONGEST = 64_000_000
CHUNK = 1_000_000
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, or the reason why there is none.

    ``where`` names file and line; ``fraction`` is how far into the file it lies, 0 to 1.
    """

    record: dict[str, Any] | None
    where: str
    fraction: float = 0.0
    problem: str = ""


def shown(path: Path) -> str:
    """A path for a message: a file's name may hold control characters, which are spelt out."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def suffix_of(path: Path) -> str:
    """The suffix that tells the kind: of ``a.jsonl.gz`` it is ``.jsonl``."""
    lower = path.name.lower()
    for end in COMPRESSED:
        if lower.endswith(end):
            inner = Path(lower[: -len(end)]).suffix
            return inner if inner in (".json", ".jsonl", ".ndjson", ".csv", ".tsv") else ""
    return path.suffix.lower()


def damaged(path: Path, error: Exception, cure: str) -> WorkbenchError:
    """The refusal of a file that is broken as a whole."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return WorkbenchError(f"{shown(path)} is damaged: {reason}.", f"Download it again or {cure}.", kind="data_file")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], float]]]:
    """A file's bytes, uncompressed, and how far into the file they have come."""
    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:

        def fraction() -> float:
            return min(raw.tell() / size, 1.0)

        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as stream:
                yield stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".bz2":
            with bz2.open(raw) as bz2_stream:
                yield bz2_stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".xz":
            with lzma.open(raw) as xz_stream:
                yield xz_stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa

            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                yield io.BufferedReader(stream, CHUNK), fraction
        else:
            yield raw, fraction
