"""Tests replace functions on the module that they imported: a dotted name would be a trap when the module moves."""

import re

from tests.quick import TESTS

_BY_NAME = re.compile(r"""\b(setattr|delattr|patch)\(\s*f?["']""")


def test_nothing_is_replaced_by_a_dotted_name() -> None:
    found = [
        f"{path.relative_to(TESTS)}: {match[0]}"
        for path in TESTS.rglob("*.py")
        for match in _BY_NAME.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found
