"""Escapes text from outside (records, replies, names) for Markdown."""

import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~$:@])")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def text(value: object, max_length: int = 400) -> str:
    """Escape text as one line of Markdown without markup, HTML or control characters."""
    line = " ".join(_INVISIBLE.sub(" ", str(value)).split())
    line = line if len(line) <= max_length else line[: max_length - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", line)


def code(content: str, language: str = "") -> str:
    """A fenced code block whose fence the content cannot close."""
    clean = "".join(c if c in "\n\t" or not _INVISIBLE.match(c) else "�" for c in content).rstrip("\n")
    longest = max((len(run) for run in re.findall(r"`+", clean)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{clean}\n{fence}"
