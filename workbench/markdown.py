"""Foreign text in Markdown, where it can be no more than text."""

import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~$:@])")


_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def text(value: object, most: int = 400) -> str:
    """Foreign text as one line of plain text in Markdown: no markup, no HTML, no control characters."""
    line = " ".join(_UNSEEN.sub(" ", str(value)).split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", line)


def code(content: str, language: str = "") -> str:
    """A fenced block that its content cannot close."""
    clean = "".join(c if c in "\n\t" or not _UNSEEN.match(c) else "�" for c in content).rstrip("\n")
    longest = max((len(run) for run in re.findall(r"`+", clean)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{clean}\n{fence}"
