"""Recipes of other tools: what both have under other names, and what one of them lacks."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import as_yaml, known_paths, parse

_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_LONGEST = 1_000_000  # characters


class Foreign:
    """Another tool's settings on their way into a recipe: what is taken is known, the rest is told.

    ``recipe`` gathers dotted keys; ``lacking`` says in words what has no counterpart.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = {str(key): _number(value) for key, value in values.items()}
        self._seen: set[str] = set()
        self.recipe: dict[str, Any] = {}
        self.lacking: list[str] = []

    def take(self, key: str, default: Any = None) -> Any:
        """A value, which then counts as understood."""
        self._seen.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def move(self, names: dict[str, str]) -> None:
        """Take every key that a recipe has under another name: ``{theirs: dotted key}``."""
        for theirs, path in names.items():
            value = self.take(theirs)
            if value is not None:
                self.recipe[path] = value

    def ignore(self, keys: Iterable[str]) -> None:
        """Keys that change nothing here."""
        self._seen.update(keys)

    def told_if_apart(self, held_out: Iterable[object]) -> None:
        """Held-out records are found by their name beside the others; say so where they have another."""
        sources = [Path(part) for part in str(self.recipe.get("data.source", "")).split(" + ")]
        own = {f"{path.stem}.eval{path.suffix}" for path in sources}
        self.lacking += [
            f"held-out records {name!r}: name the file like the training file, with .eval before the extension"
            for name in map(str, held_out)
            if Path(name).name not in own
        ]

    def made(self, origin: str) -> tuple[Recipe, list[str]]:
        """The recipe, and what of the other tool's settings has no counterpart.

        Raises:
            RecipeError: values that no recipe can have; all of them.
        """
        rest = [
            f"{key}: {_short(value)}"
            for key, value in self._values.items()
            if key not in self._seen and value not in (None, False, "", [], {})
        ]
        data: dict[str, dict[str, Any]] = {}
        for path, value in self.recipe.items():
            section, _, name = path.partition(".")
            data.setdefault(section, {})[name] = value
        return parse(data, origin), self.lacking + rest


def without_counterpart(recipe: Recipe, understood: Iterable[str]) -> list[str]:
    """The keys of a recipe that differ from their defaults and are not among those that the other tool has."""
    default, known = Recipe(), set(understood)
    return [
        f"{path}: {_short(recipe.get(path))}"
        for path in known_paths()
        if path not in known and recipe.get(path) != default.get(path)
    ]


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in another tool's YAML file.

    Raises:
        WorkbenchError: it cannot be read, or holds something else.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            text = stream.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ValueError("it is too large for a configuration")
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("it has no settings")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WorkbenchError(
            f"{file} cannot be read: {reason}.", "Give an Axolotl or LLaMA-Factory YAML file.", kind="recipe"
        ) from None
    return values


def place_of(source: str, folder: Path) -> str:
    """A path in another tool's file, seen from that file's folder; a hub id as it is."""
    path = Path(source).expanduser()
    beside = path if path.is_absolute() else folder / path
    return str(beside.resolve()) if beside.exists() else source


def to_yaml(values: dict[str, Any], about: str) -> str:
    """YAML with a line of comment on top."""
    return f"# {about}\n" + as_yaml(values)


def _number(value: Any) -> Any:
    """YAML 1.1 takes ``2e-4`` for text."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:79] + "…"
