"""Text from outside, made safe to show: it may neither style nor control the terminal."""

import unicodedata

_KEPT = {"\n", "\t"}
_LINE_ENDS = {"\u2028", "\u2029"}

# Cf holds both what emoji and scripts need to join and what turns the reading direction around, which could make a
# name read as another one. Only the joiners stay.
_JOINERS = {"\u200c", "\u200d"}


def plain(text: object, *, lines: bool = False) -> str:
    """``text`` without terminal control characters, direction overrides or stray surrogates.

    Args:
        text: a record, a model's reply, a file name, a library's message.
        lines: keep line breaks and tabs; otherwise they become spaces.
    """
    raw = str(text)
    if raw.isascii() and raw.isprintable():
        return raw
    return "".join(_shown(character, lines) for character in raw)


def _shown(character: str, lines: bool) -> str:
    if character in _KEPT:
        return character if lines else " "
    match unicodedata.category(character):
        case "Cc":
            # The Unicode "control pictures" stand for the 32 C0 codes and DEL; C1 codes have none.
            code = ord(character)
            return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"
        case "Cf":
            return character if character in _JOINERS else ""
        case "Cs" | "Zl" | "Zp":
            return "\n" if lines and character in _LINE_ENDS else "�"
    return character
