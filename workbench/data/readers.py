"""Rows out of one local file, one after the other, in constant memory; each knows where it stands.

A row that cannot be read comes out as a :class:`Row` with a ``problem`` and no record, and the rows after it follow.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import WorkbenchError

# A line or value longer than this is no record; reading it whole could fill the memory.
_LONGEST_LINE = 64_000_000
_CHUNK = 1_000_000
_DOCUMENT_SUFFIXES = (".txt", ".md")
_COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, or the reason why there is none.

    ``where`` names file and line; ``fraction`` is how far into the file it lies, 0 to 1.
    """

    record: dict[str, Any] | None
    where: str
    fraction: float = 0.0
    problem: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its suffix.

    Raises:
        WorkbenchError: the file is missing, unreadable, damaged as a whole, or of an unknown kind.
    """
    reader = _reader_of(path)
    try:
        yield from reader(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, error, "compress it again") from None
    except OSError as error:
        if path.suffix in _COMPRESSED and error.errno is None:
            raise _damaged(path, error, "compress it again") from None
        raise WorkbenchError(
            f"Cannot read {shown(path)}: {error.strerror or error}.",
            "Check that it exists and may be read.",
            kind="data_file",
        ) from None


def can_read(path: Path) -> bool:
    """Whether the file's suffix is that of a kind of records known here."""
    return _suffix(path) in _READERS


def is_document(path: Path) -> bool:
    """Whether the file is a document: text to learn as it is, not records."""
    return path.suffix.lower() in _DOCUMENT_SUFFIXES


def read_document(path: Path) -> Row:
    """A whole text file as one row ``{"text": …}``; line ends become ``\\n``.

    Raises:
        WorkbenchError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WorkbenchError(
            f"Cannot read {shown(path)}: {error.strerror or error}.",
            "Check that it exists and may be read.",
            kind="data_file",
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Row(None, shown(path), problem=f"line {line} is not UTF-8")
    return Row({"text": text.replace("\r\n", "\n").replace("\r", "\n")}, shown(path))


def shown(path: Path) -> str:
    """A path for a message: a file's name may hold control characters, which are spelt out."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def known_suffixes() -> str:
    return ", ".join(sorted(_READERS)) + " (the text ones also .gz, .zst)"


def _suffix(path: Path) -> str:
    """The suffix that tells the kind: of ``a.jsonl.gz`` it is ``.jsonl``."""
    lower = path.name.lower()
    for end in _COMPRESSED:
        if lower.endswith(end):
            inner = Path(lower[: -len(end)]).suffix
            return inner if inner in (".json", ".jsonl", ".ndjson", ".csv", ".tsv") else ""
    return path.suffix.lower()


def _reader_of(path: Path) -> Callable[[Path], Iterator[Row]]:
    reader = _READERS.get(_suffix(path))
    if reader is None:
        raise WorkbenchError(
            f"{shown(path)} is of no kind that can be read.", f"Known are {known_suffixes()}.", kind="data_file"
        )
    return reader


def _damaged(path: Path, error: Exception, cure: str) -> WorkbenchError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return WorkbenchError(f"{shown(path)} is damaged: {reason}.", f"Fetch it again or {cure}.", kind="data_file")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], float]]]:
    """A file's bytes, uncompressed, and how far into the file they have come."""
    size = max(path.stat().st_size, 1)
    with path.open("rb") as raw:

        def fraction() -> float:
            return min(raw.tell() / size, 1.0)

        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as stream:
                yield stream, fraction  # type: ignore[misc]
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa

            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as stream:
                yield io.BufferedReader(stream, _CHUNK), fraction
        else:
            yield raw, fraction


def _read_jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as (stream, fraction):
        for number, given in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
            where = f"{shown(path)}, line {number}"
            line = given.removeprefix(b"\xef\xbb\xbf") if number == 1 else given
            if len(given) == _LONGEST_LINE:
                raise WorkbenchError(
                    f"{where} is longer than {_LONGEST_LINE // 1_000_000} MB.",
                    "Write one JSON object a line.",
                    kind="data_file",
                )
            if line.isspace():
                continue
            yield _json_row(line, where, fraction())


def _json_row(line: bytes, where: str, fraction: float) -> Row:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return Row(None, where, fraction, f"column {error.start + 1}: not UTF-8, which is expected")
    except json.JSONDecodeError as error:
        return Row(None, where, fraction, f"column {error.colno}: {_json_words(error)}")
    except (ValueError, RecursionError) as error:
        return Row(None, where, fraction, f"column 1: {_other_words(error)}")
    if not isinstance(value, dict):
        return Row(
            None, where, fraction, 'column 1: a JSON object is expected, such as {"instruction": …, "response": …}'
        )
    return Row(value, where, fraction)


class _TwiceError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which no key is given twice: JSON would keep the last and lose the others silently."""
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {twice[:40]!r} is given twice")
    return made


def _json_words(error: json.JSONDecodeError) -> str:
    return error.msg[0].lower() + error.msg[1:]


def _other_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values nested too deeply"
    return str(error) if isinstance(error, _TwiceError) else "a number of too many digits"


def _read_json(path: Path) -> Iterator[Row]:
    """A list of objects, an object that holds such a list, or objects one after the other."""
    with _opened(path) as (stream, fraction):
        text = _JsonText(stream)
        if text.peek() == "":
            return
        if text.peek() == "[":
            text.skip(1)
            if text.peek() == "]":
                return
            yield from _json_values(path, text, fraction, in_list=True)
            return
        rows = _json_values(path, text, fraction, in_list=False)
        first = next(rows)
        second = next(rows, None)
        inner = _only_list(first.record) if second is None else None
        if inner is not None:
            yield from (_as_row(value, f"{shown(path)}, record {n}", 1.0) for n, value in enumerate(inner, start=1))
            return
        yield first
        if second is not None:
            yield second
            yield from rows


def _only_list(record: dict[str, Any] | None) -> list[Any] | None:
    """The list of objects in ``{"data": […]}``; a list of turns is a record's own."""
    lists = [value for value in (record or {}).values() if isinstance(value, list)]
    if record is None or len(lists) != 1 or not lists[0] or not all(isinstance(item, dict) for item in lists[0]):
        return None
    if {"role", "from"} & set(lists[0][0]):
        return None
    return lists[0]


def _as_row(value: Any, where: str, fraction: float) -> Row:
    if isinstance(value, dict):
        return Row(value, where, fraction)
    return Row(None, where, fraction, 'a JSON object is expected, such as {"instruction": …, "response": …}')


def _json_values(path: Path, text: "_JsonText", fraction: Callable[[], float], in_list: bool) -> Iterator[Row]:
    """The values up to the end of list or file. Where the syntax breaks nothing after it can be trusted: one last
    row tells the place."""
    while True:
        where = f"{shown(path)}, line {text.line}"
        try:
            value = text.value()
        except (ValueError, RecursionError) as error:
            line, words = text.problem(error)
            yield Row(None, f"{shown(path)}, line {line}", fraction(), f"{words}; the rest is lost")
            return
        yield _as_row(value, where, fraction())
        following = text.peek()
        if in_list and following == ",":
            text.skip(1)
        elif (in_list and following == "]") or (not in_list and following == ""):
            return
        elif in_list:
            found = repr(following) if following else "the end of the file"
            yield Row(
                None,
                f"{shown(path)}, line {text.line}",
                fraction(),
                f"{found} where , or ] is expected; the rest is lost",
            )
            return


class _JsonText:
    """JSON text read a chunk at a time, so that a list of any length needs the memory of its longest value."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._decoder = json.JSONDecoder(object_pairs_hook=_unique)
        self._text = ""
        self._at = 0
        self._ended = False
        self._line_start = (
            0  # offset of the line's first character from that of ``_text``; negative once it was dropped
        )
        self.line = 1

    def peek(self) -> str:
        """The next character that is no white space, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self.skip(1)
            if not self._more():
                return ""

    def skip(self, count: int) -> None:
        end = self._at + count
        if lines := self._text.count("\n", self._at, end):
            self.line += lines
            self._line_start = self._text.rindex("\n", self._at, end) + 1
        self._at = end

    def value(self) -> Any:
        """The next value.

        Raises:
            ValueError, RecursionError: there is none.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number that ends where the chunk does may go on in the next one.
                if end < len(self._text) or not self._more():
                    self.skip(end - self._at)
                    return value
            except json.JSONDecodeError:
                if not self._more():
                    raise

    def problem(self, error: Exception) -> tuple[int, str]:
        """The line of an error that :meth:`value` raised, and its column and reason in words."""
        if not isinstance(error, json.JSONDecodeError):
            return self.line, f"column {self._at - self._line_start + 1}: {_other_words(error)}"
        newline = self._text.rfind("\n", self._at, error.pos)
        start = self._line_start if newline < 0 else newline + 1
        line = self.line + self._text.count("\n", self._at, error.pos)
        return line, f"column {error.pos - start + 1}: {_json_words(error)}"

    def _more(self) -> bool:
        """Read on, as much again as is held, so that a long value is not parsed too often; False at the end."""
        if self._ended:
            return False
        if len(self._text) - self._at > _LONGEST_LINE:
            raise ValueError
        chunk = self._stream.read(max(_CHUNK, len(self._text) - self._at))
        if not chunk:  # nothing moves: the places in an error still hold
            self._ended = True
            return False
        self._text = self._text[self._at :] + chunk
        self._line_start -= self._at
        self._at = 0
        return True


def _read_table(path: Path) -> Iterator[Row]:
    with _opened(path) as (stream, fraction):
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        csv.field_size_limit(_LONGEST_LINE)
        table = csv.reader(text, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
        header = _header(path, table)
        while True:
            start = table.line_num + 1
            try:
                cells = next(table, None)
            except csv.Error as error:
                yield Row(None, f"{shown(path)}, line {start}", fraction(), f"column 1: {error}")
                continue
            if cells is None:
                return
            if cells:
                yield _table_row(cells, header, f"{shown(path)}, line {start}", fraction())


def _header(path: Path, table: Any) -> list[str]:
    try:
        header: list[str] = next(table, [])
    except csv.Error as error:
        raise WorkbenchError(
            f"{shown(path)}, line 1: {error}.", "Write the columns' names there.", kind="data_file"
        ) from None
    if not any(_is_text(name) and name.strip() for name in header):
        if header:
            raise WorkbenchError(
                f"{shown(path)}, line 1 names no columns.",
                "Write the columns' names there, in UTF-8.",
                kind="data_file",
            )
        return []
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise WorkbenchError(
            f"{shown(path)} has two columns named {twice[:40]!r}.", "Rename one of them in line 1.", kind="data_file"
        )
    return header


def _table_row(cells: list[str], header: list[str], where: str, fraction: float) -> Row:
    if len(cells) != len(header):
        column = min(len(cells), len(header)) + 1
        return Row(None, where, fraction, f"column {column}: {len(cells)} cells, {len(header)} are expected")
    for number, cell in enumerate(cells, start=1):
        if not _is_text(cell):
            return Row(None, where, fraction, f"column {number}: not UTF-8, which is expected")
    return Row(dict(zip(header, cells, strict=True)), where, fraction)


def _is_text(cell: str) -> bool:
    return cell.isascii() or not any("\udc80" <= char <= "\udcff" for char in cell)


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            total, number = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{shown(path)}, row {number}", number / total)
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(path, error, "write it again") from None


def _read_arrow(path: Path) -> Iterator[Row]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                stream: Any = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                file = pa.ipc.open_file(source)
                stream = (file.get_batch(number) for number in range(file.num_record_batches))
            number = 0
            for batch in stream:
                # Nothing in the file vouches for its offsets: followed unchecked, wrong ones read foreign memory.
                batch.validate(full=True)
                _check_names(path, batch.schema.names)
                for start in range(0, batch.num_rows, 1000):
                    for record in batch.slice(start, 1000).to_pylist():
                        number += 1
                        yield Row(record, f"{shown(path)}, row {number}")
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(path, error, "write it again") from None


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise WorkbenchError(
            f"{shown(path)} has two columns named {twice[:40]!r}.", "Rename one of them.", kind="data_file"
        )


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
