"""Rows of JSON: an object a line, or values one after the other, in a list, or in an object that holds such a list."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from workbench.data.rows.row import CHUNK, LONGEST, Row, opened, shown
from workbench.errors import WorkbenchError


def read_jsonl(path: Path) -> Iterator[Row]:
    """One object a line; blank lines are passed over. A file that is one JSON list is read by :func:`read_json`."""
    if _is_list(path):
        yield from read_json(path)
        return
    with opened(path) as (stream, fraction):
        for number, given in enumerate(iter(lambda: stream.readline(LONGEST), b""), start=1):
            where = f"{shown(path)}, line {number}"
            line = given.removeprefix(b"\xef\xbb\xbf") if number == 1 else given
            if len(given) == LONGEST:
                raise WorkbenchError(
                    f"{where} is longer than {LONGEST // 1_000_000} MB.",
                    "Write one JSON object a line.",
                    kind="data_file",
                )
            if line.isspace():
                continue
            yield _json_row(line, where, fraction())


def _is_list(path: Path) -> bool:
    """Whether a file is one JSON list. A list of turns is a record, and so is one of several lines."""
    with opened(path) as (stream, _):
        first = stream.readline(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
        while first == b"" and (line := stream.readline(CHUNK)):
            first = line.lstrip()
        if not first.startswith(b"["):
            return False
        try:
            value = json.loads(first)
        except (ValueError, RecursionError):
            return True  # the list goes on over more lines, or over more than was read
        turns = isinstance(value, list) and value and isinstance(value[0], dict) and _is_turn(value[0])
        return not turns and not stream.readline(CHUNK).strip()


def _json_row(line: bytes, where: str, fraction: float) -> Row:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return Row(None, where, fraction, f"column {error.start + 1}: not UTF-8")
    except json.JSONDecodeError as error:
        return Row(None, where, fraction, f"column {error.colno}: {_json_words(error)}")
    except (ValueError, RecursionError) as error:
        return Row(None, where, fraction, f"column 1: {_other_words(error)}")
    row = _as_row(value, where, fraction)
    return row if row.record is not None else Row(None, where, fraction, f"column 1: {row.problem}")


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
    return str(error) if isinstance(error, _TwiceError) else "a number with too many digits"


def read_json(path: Path) -> Iterator[Row]:
    """A list of objects, an object that holds such a list, or objects one after the other."""
    with opened(path) as (stream, fraction):
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
    if _is_turn(lists[0][0]):
        return None
    return lists[0]


def _is_turn(value: dict[str, Any]) -> bool:
    return bool({"role", "from"} & value.keys())


def _as_row(value: Any, where: str, fraction: float) -> Row:
    if isinstance(value, list) and value and all(isinstance(turn, dict) and _is_turn(turn) for turn in value):
        value = {"messages": value}
    if isinstance(value, dict):
        return Row(value, where, fraction)
    return Row(None, where, fraction, 'expected a JSON object, such as {"instruction": …, "response": …}')


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
                f"{found} instead of , or ]; the rest is lost",
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
        if len(self._text) - self._at > LONGEST:
            raise ValueError
        chunk = self._stream.read(max(CHUNK, len(self._text) - self._at))
        if not chunk:  # nothing moves: the places in an error still hold
            self._ended = True
            return False
        self._text = self._text[self._at :] + chunk
        self._line_start -= self._at
        self._at = 0
        return True
