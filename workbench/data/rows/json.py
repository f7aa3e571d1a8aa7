"""Reads rows from JSON Lines, and from JSON files with a list of objects or several objects in a row."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from workbench.data.rows.row import CHUNK, LONGEST, OpenFile, Row, opened, shown
from workbench.errors import WorkbenchError

_TWICE = "Records encoded as JSON text inside a JSON string are decoded"


def read_jsonl(path: Path) -> Iterator[Row]:
    """Read JSON Lines: one object per line; blank lines are skipped. A file that is one JSON list is read as JSON."""
    if _is_list(path):
        yield from read_json(path)
        return
    with opened(path) as file:
        for number, raw_line in enumerate(iter(lambda: file.stream.readline(LONGEST), b""), start=1):
            where = f"{shown(path)}, line {number}"
            line = raw_line.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw_line
            if len(raw_line) == LONGEST:
                raise WorkbenchError(
                    f"{where} is longer than {LONGEST // 1_000_000} MB.",
                    "Write one JSON object a line.",
                    kind="data_file",
                )
            if line.isspace():
                continue
            yield _json_row(line, where, file)


def _is_list(path: Path) -> bool:
    """Whether a file is one JSON list. A list of turns is a record, and so is one of several lines."""
    with opened(path) as file:
        stream = file.stream
        first = stream.readline(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
        while first == b"" and (line := stream.readline(CHUNK)):
            first = line.lstrip()
        if not first.startswith(b"["):
            return False
        try:
            value = json.loads(first)
        except (ValueError, RecursionError):
            return True  # the list continues on more lines, or beyond what was read
        turns = isinstance(value, list) and value and isinstance(value[0], dict) and _is_turn(value[0])
        return not turns and not stream.readline(CHUNK).strip()


def _json_row(line: bytes, where: str, file: OpenFile) -> Row:
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        return Row(None, where, file.fraction(), f"column {error.start + 1}: not UTF-8")
    except json.JSONDecodeError as error:
        return Row(None, where, file.fraction(), f"column {error.colno}: {_syntax_error(error)}")
    except (ValueError, RecursionError) as error:
        return Row(None, where, file.fraction(), f"column 1: {_value_error(error)}")
    row = _as_row(value, where, file)
    return row if row.record is not None else Row(None, where, row.fraction, f"column 1: {row.problem}")


class _DuplicateKeyError(ValueError):
    pass


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object, refusing duplicate keys, of which Python's parser would silently keep only the last."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise _DuplicateKeyError(f"the key {duplicate[:40]!r} is given twice")
    return result


# ``json.loads`` would make a new one for each line.
_DECODER = json.JSONDecoder(object_pairs_hook=_object_without_duplicates)


def _syntax_error(error: json.JSONDecodeError) -> str:
    return error.msg[0].lower() + error.msg[1:]


def _value_error(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values nested too deeply"
    return str(error) if isinstance(error, _DuplicateKeyError) else "a number with too many digits"


def read_json(path: Path) -> Iterator[Row]:
    """Read a JSON file: a list of objects, an object that contains one such list, or several objects in a row."""
    with opened(path) as file:
        text = _JsonText(file.stream)
        if text.peek() == "":
            return
        if text.peek() == "[":
            text.skip(1)
            if text.peek() == "]":
                return
            yield from _json_values(path, text, file, in_list=True)
            return
        rows = _json_values(path, text, file, in_list=False)
        first = next(rows)
        second = next(rows, None)
        inner = _only_list(first.record) if second is None else None
        if inner is not None:
            for number, value in enumerate(inner, start=1):
                yield _as_row(value, f"{shown(path)}, record {number}", file, first.note)
            return
        yield first
        if second is not None:
            yield second
            yield from rows


def _only_list(record: dict[str, object] | None) -> list[object] | None:
    """The list of objects in ``{"data": […]}``. None for a list of turns, which is part of a single record."""
    lists = [value for value in (record or {}).values() if isinstance(value, list)]
    if record is None or len(lists) != 1 or not lists[0] or not all(isinstance(item, dict) for item in lists[0]):
        return None
    if _is_turn(lists[0][0]):
        return None
    return lists[0]


def _is_turn(value: dict[str, object]) -> bool:
    return bool({"role", "from"} & value.keys())


def _as_row(value: object, where: str, file: OpenFile, note: str = "") -> Row:
    note = note or file.note
    if isinstance(value, str):
        value, note = _encoded_twice(value), f"{note}; {_TWICE}" if note else _TWICE
    if isinstance(value, list) and value and all(isinstance(turn, dict) and _is_turn(turn) for turn in value):
        value = {"messages": value}
    if isinstance(value, dict):
        return Row(value, where, file.fraction(), note=note)
    return Row(None, where, file.fraction(), 'expected a JSON object, such as {"instruction": …, "response": …}')


def _encoded_twice(text: str) -> object:
    """The value of a JSON string that holds JSON, a list of objects under ``data``; other text as it is."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text
    is_list = isinstance(value, list) and value and all(isinstance(item, dict) and not _is_turn(item) for item in value)
    return {"data": value} if is_list else value


def _json_values(path: Path, text: "_JsonText", file: OpenFile, in_list: bool) -> Iterator[Row]:
    """Yield the values up to the end of the list or file.

    After a syntax error, nothing that follows can be read: the last row reports its place.
    """
    while True:
        where = f"{shown(path)}, line {text.line}"
        try:
            value = text.value()
        except (ValueError, RecursionError) as error:
            line, reason = text.problem(error)
            yield Row(None, f"{shown(path)}, line {line}", file.fraction(), f"{reason}; the rest is lost")
            return
        yield _as_row(value, where, file)
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
                file.fraction(),
                f"{found} instead of , or ]; the rest is lost",
            )
            return


class _JsonText:
    """Parses JSON text a chunk at a time, so that a list of any length needs only the memory of its longest value."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._text = ""
        self._at = 0
        self._ended = False
        # Index in ``_text`` of the current line's first character; negative once that character has been dropped.
        self._line_start = 0
        self.line = 1

    def peek(self) -> str:
        """Return the next character that is not white space, without consuming it; an empty string at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self.skip(1)
            if not self._read_more():
                return ""

    def skip(self, count: int) -> None:
        """Consume some characters."""
        end = self._at + count
        if lines := self._text.count("\n", self._at, end):
            self.line += lines
            self._line_start = self._text.rindex("\n", self._at, end) + 1
        self._at = end

    def value(self) -> object:
        """Parse and consume the next value.

        Raises:
            ValueError, RecursionError: there is no valid value.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                # A number at the end of the chunk may continue in the next one.
                if end < len(self._text) or not self._read_more():
                    self.skip(end - self._at)
                    result: object = value
                    return result
            except json.JSONDecodeError:
                if not self._read_more():
                    raise

    def problem(self, error: Exception) -> tuple[int, str]:
        """The line of an error that :meth:`value` raised, and a text with its column and reason."""
        if not isinstance(error, json.JSONDecodeError):
            return self.line, f"column {self._at - self._line_start + 1}: {_value_error(error)}"
        newline = self._text.rfind("\n", self._at, error.pos)
        start = self._line_start if newline < 0 else newline + 1
        line = self.line + self._text.count("\n", self._at, error.pos)
        return line, f"column {error.pos - start + 1}: {_syntax_error(error)}"

    def _read_more(self) -> bool:
        """Read another chunk; False at the end of the file.

        The chunk is as long as the text so far, so that a long value is not parsed from its start too often.
        """
        if self._ended:
            return False
        if len(self._text) - self._at > LONGEST:
            raise ValueError
        chunk = self._stream.read(max(CHUNK, len(self._text) - self._at))
        if not chunk:  # ``_text`` stays as it is, so that the positions in an error remain valid
            self._ended = True
            return False
        self._text = self._text[self._at :] + chunk
        self._line_start -= self._at
        self._at = 0
        return True
