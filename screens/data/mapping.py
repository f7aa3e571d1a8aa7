"""The parts of a record that a column can be mapped to, and a mapping as it is edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Part(NamedTuple):
    """A part of a record: its name in ``data.columns``, the key that assigns it, and what it is."""

    name: str
    key: str
    help: str


PARTS = (
    Part("prompt", "p", "instruction or question"),
    Part("input", "i", "context, added to the prompt"),
    Part("reply", "r", "response, trained"),
    Part("reasoning", "g", "reasoning before the response"),
    Part("system", "s", "system prompt"),
    Part("history", "h", "earlier turns"),
    Part("messages", "m", "whole conversation"),
    Part("tools", "t", "functions for tool calls"),
    Part("chosen", "c", "chosen response of a pair"),
    Part("rejected", "d", "rejected response of a pair"),
    Part("label", "l", "true for a good response (KTO), or the class"),
    Part("segments", "e", "text in labeled segments"),
    Part("text", "x", "plain text, trained or classified"),
)
_NAMES = [part.name for part in PARTS]


def part_of(mapping: Mapping[str, str], column: str) -> str:
    """Return the part that a column is mapped to; empty if it is unused."""
    return next((part for part, mapped in mapping.items() if mapped == column), "")


def assigned(mapping: Mapping[str, str], column: str, part: str) -> dict[str, str]:
    """Return the mapping with a column as a part, in the order of :data:`PARTS`; an empty part leaves it unused.

    A part has one column: the one that it had before becomes unused.
    """
    kept = {name: mapped for name, mapped in mapping.items() if mapped != column and name != part}
    chosen = kept | ({part: column} if part else {})
    return {name: chosen[name] for name in _NAMES if name in chosen}


def stepped(mapping: Mapping[str, str], column: str, by: int) -> dict[str, str]:
    """Return the mapping with a column as the next or the previous part that no other column has.

    Before the first part the column is unused.
    """
    free = ["", *(name for name in _NAMES if mapping.get(name, column) == column)]
    return assigned(mapping, column, free[(free.index(part_of(mapping, column)) + by) % len(free)])
