"""Finds the encoding of a text file that is not UTF-8, so that its records are read and not skipped."""

import codecs
import io
import json
from dataclasses import dataclass
from typing import BinaryIO

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# Share of zeros from which text without a byte order mark is taken for UTF-16 or UTF-32. A damaged file has some zeros.
_FEWEST_ZEROS = 0.1
# One place that is not UTF-8 is taken for damage, and its line is named; so many show another encoding.
_FEWEST_PLACES = 2
HEAD = 1_000_000
"""Bytes at the beginning of a file that tell its encoding."""
# A line that is cut off at the end of the head ends in the middle of a character.
_LONGEST_CHARACTER = 4
# The encodings that text files still have where they have no Unicode, for charset-normalizer to choose from.
_OTHERS = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
# Western European text is as likely as its neighbor in most guesses, and far more common.
_COMMON = "cp1252"
_AS_LIKELY = 0.02


@dataclass(frozen=True)
class Encoding:
    """How the bytes of a file are text. ``note``: what to tell the user; empty for UTF-8."""

    name: str = "utf-8"
    note: str = ""


UTF_8 = Encoding()


def encoding_of(head: bytes) -> Encoding:
    """The encoding of a file that begins with ``head``.

    UTF-16 and UTF-32 are known by their byte order mark, or by the zeros in the characters of ASCII; another encoding
    is guessed, and the note says so. Text that is mostly valid UTF-8 is UTF-8, and so is what is no text.
    """
    name = json.detect_encoding(head)
    if not name.startswith("utf-8"):
        zeros = head.count(0) / len(head)
        return Encoding(name, f"Read as {name.upper()}") if head.startswith(_MARKS) or zeros > _FEWEST_ZEROS else UTF_8
    if _is_utf_8(head) or b"\0" in head:
        return UTF_8
    guessed = _guess(head)
    if guessed is None:
        return UTF_8
    return Encoding(guessed, f"Read as {guessed}, which was guessed, because the file is not UTF-8")


def decoded(data: bytes) -> tuple[str, str]:
    """The text of a whole file, without its byte order mark, and the note of its encoding.

    Raises:
        UnicodeDecodeError: it is not valid in its encoding.
    """
    encoding = encoding_of(data[:HEAD])
    return data.decode("utf-8-sig" if encoding == UTF_8 else encoding.name).removeprefix("\ufeff"), encoding.note


def as_utf_8(stream: BinaryIO, encoding: Encoding) -> BinaryIO:
    """A stream of text in some encoding as a stream of UTF-8; what is not valid in it is not valid UTF-8 either."""
    if encoding == UTF_8:
        return stream
    return io.BufferedReader(_Transcoded(stream, encoding.name))


class _Transcoded(io.RawIOBase):
    def __init__(self, stream: BinaryIO, name: str) -> None:
        # Half a surrogate pair passes as such; other invalid bytes pass as they are.
        self._errors = "surrogatepass" if name.startswith("utf") else "surrogateescape"
        # Kept: as soon as nothing refers to it, it closes the stream.
        self._text = io.TextIOWrapper(stream, encoding=name, errors=self._errors, newline="")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._left = self._left or self._text.read(1 << 16).encode("utf-8", self._errors)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _is_utf_8(head: bytes) -> bool:
    """Whether bytes are UTF-8, but for some that are damaged: most of what is not ASCII is valid."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(head) - _LONGEST_CHARACTER:
            return True
    else:
        return True
    text = head.decode(errors="replace")
    damaged = text.count("\N{REPLACEMENT CHARACTER}")
    valid = sum(not char.isascii() for char in text) - damaged
    return damaged < _FEWEST_PLACES or valid >= damaged


def _guess(head: bytes) -> str | None:
    from charset_normalizer import from_bytes

    found = list(from_bytes(head, cp_isolation=list(_OTHERS)))
    if not found:
        return None
    best = found[0]
    common = next((match for match in found if match.encoding == _COMMON), None)
    if (
        common is not None
        and common.chaos <= best.chaos + _AS_LIKELY
        and common.coherence >= best.coherence - _AS_LIKELY
    ):
        return _COMMON
    return best.encoding
