"""Makes text from outside safe to print: it can neither style nor control the terminal."""

import unicodedata

_WHITE_SPACE = {"\n", "\t"}
_LINE_ENDS = {"\u2028", "\u2029"}

# Category Cf has joiners, which emoji and some scripts need, and direction overrides, which can disguise a name. Only
# the joiners stay.
_JOINERS = {"\u200c", "\u200d"}


def plain(text: object, *, lines: bool = False) -> str:
    """Remove or replace control characters, direction overrides and lone surrogates in a text.

    Args:
        text: a record, a model's reply, a file name, a library's message.
        lines: keep line breaks and tabs; otherwise they become spaces.
    """
    raw = str(text)
    if raw.isascii() and raw.isprintable():
        return raw
    return "".join(_shown(character, lines) for character in raw)


def _shown(character: str, lines: bool) -> str:
    if character in _WHITE_SPACE:
        return character if lines else " "
    match unicodedata.category(character):
        case "Cc":
            # Unicode has "control pictures" for the 32 C0 codes and DEL, but not for C1 codes.
            code = ord(character)
            return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"
        case "Cf":
            return character if character in _JOINERS else ""
        case "Cs" | "Zl" | "Zp":
            return "\n" if lines and character in _LINE_ENDS else "�"
    return character
