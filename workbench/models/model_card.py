"""Reads the license that the card (``README.md``) in a model's folder states."""

import re
from pathlib import Path

import yaml

_MAX_FRONT_MATTER = 100_000


def card_license(folder: Path) -> str:
    """``license`` from the front matter of the card, ``license_name`` for a license of its own; empty without one."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            head = file.read(_MAX_FRONT_MATTER)
        match = re.match(r"---\s*\n(.*?)\n---\s*\n", head, re.DOTALL)
        facts = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return license_name(facts) if isinstance(facts, dict) else ""


def license_name(card: dict[str, object]) -> str:
    """The license that the front matter of a card states; empty if it states none."""
    stated, name = card.get("license"), card.get("license_name")
    if stated == "other" and isinstance(name, str):
        return name
    return stated if isinstance(stated, str) else ""
