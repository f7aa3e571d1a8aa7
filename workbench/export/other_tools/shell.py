"""Reads the commands of a shell script without running it.

Understood are assignments, variables, sums (``expr`` and ``$((…))``), quotes, continued lines and comments. What else a
script works out stays as it is written, so that it is seen in what is made of it.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_PART = re.compile(
    r"(?P<quoted>'[^']*')"
    r"|\$\(\((?P<sum>[^()]*)\)\)"
    r"|\$\(\s*expr\s+(?P<expr>[^()]*)\)"
    r"|\$(?P<name>[A-Za-z_]\w*)"
    r"|\$\{(?P<braced>[A-Za-z_]\w*)(?::?-(?P<other>[^}]*))?\}"
)
_SUM = re.compile(r"\d{1,15}(\s*\\?[*/%+-]\s*\d{1,15})*")
_SEPARATORS = (";", "&", "&&", "|", "||", "\n")
_REDIRECTION = re.compile(r"[0-9&]?>>?.*")


@dataclass(frozen=True)
class Command:
    """One command: its words, and the environment that the script sets for it."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def commands(script: str) -> list[Command]:
    """The commands of a script, in order."""
    variables: dict[str, str] = {}
    found = []
    for line in _lines(script):
        for words in _split(_expanded(line, variables)):
            assigned: dict[str, str] = {}
            rest = list(words)
            if rest[:1] == ["export"]:
                rest = rest[1:]
            while rest and (match := _ASSIGNMENT.fullmatch(rest[0])):
                assigned[match[1]] = match[2]
                rest = rest[1:]
            if rest:
                found.append(Command(tuple(rest), {**variables, **assigned}))
            else:
                variables |= assigned
    return found


def _lines(script: str) -> Iterator[str]:
    """Lines without comments, with those that are continued, or whose quotes are open, joined."""
    line, quote = "", ""
    for part in script.splitlines():
        if not quote and part.lstrip().startswith("#"):
            continue
        line += part
        quote = _open_quote(part, quote)
        if quote:
            line += "\n"
        elif line.endswith("\\"):
            line = line[:-1] + " "
        else:
            yield line
            line = ""
    if line.strip():
        yield line


def _open_quote(text: str, quote: str) -> str:
    """The quote that is open at the end of a text, if ``quote`` is open at its beginning; empty if none is."""
    is_escaped = False
    for character in text:
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    return quote


def _split(line: str) -> Iterator[list[str]]:
    """The words of each command of a line."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    command: list[str] = []
    for word in words:
        ends = word in _SEPARATORS or word.endswith(";")
        if word not in _SEPARATORS:
            command.append(word.removesuffix(";"))
        if ends:
            yield from _without_rest(command)
            command = []
    yield from _without_rest(command)


def _without_rest(command: list[str]) -> Iterator[list[str]]:
    """A command up to its comment or redirection, if there is one."""
    end = next(
        (place for place, word in enumerate(command) if word.startswith("#") or _REDIRECTION.fullmatch(word)),
        len(command),
    )
    if command[:end]:
        yield command[:end]


def _expanded(line: str, variables: Mapping[str, str]) -> str:
    """A line with the values of its variables and sums."""

    def value(match: re.Match[str]) -> str:
        name = match["name"] or match["braced"]
        if name:
            return variables.get(name, match["other"] if match["other"] is not None else match[0])
        text = match["sum"] if match["sum"] is not None else match["expr"]
        return match[0] if text is None else _calculated(_expanded(text, variables), match[0])

    return _PART.sub(value, line)


def _calculated(text: str, written: str) -> str:
    """A sum of whole numbers, worked out from left to right with × and ÷ first; other text as it is written."""
    bare = text.strip().replace("\\*", "*")
    if not _SUM.fullmatch(bare):
        return written
    terms = re.split(r"\s*([+-])\s*", bare)
    total, sign = 0, 1
    for term in terms:
        if term in "+-":
            sign = 1 if term == "+" else -1
            continue
        first, *rest = re.split(r"\s*([*/%])\s*", term)
        product = int(first)
        for operator, number in zip(rest[::2], rest[1::2], strict=True):
            if operator != "*" and not int(number):
                return written
            product = {
                "*": product * int(number),
                "/": product // (int(number) or 1),
                "%": product % (int(number) or 1),
            }[operator]
        total += sign * product
    return str(total)
