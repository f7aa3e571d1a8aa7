"""Reads, writes and edits recipes: YAML in and out, changes by dotted key, and errors that list every mistake."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from workbench.errors import Problem, WorkbenchError
from workbench.objectives.table import OBJECTIVES
from workbench.recipe.problems import problems_of, value_text
from workbench.recipe.schema import Recipe

R = TypeVar("R", bound=Recipe)


class RecipeError(WorkbenchError):
    """A recipe that is not valid; lists every mistake in it.

    Args:
        problems: every mistake, in the order of the recipe.
        origin: the file or preset that the recipe came from.
    """

    def __init__(self, problems: list[Problem], origin: str = "The recipe") -> None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{origin} has {count}:\n{lines}", kind="recipe", problems=problems)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads ``2e-4`` as a number (a string in YAML 1.1) and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


_NUMBERS = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(*_NUMBERS)


def parse(data: object, origin: str = "The recipe") -> Recipe:
    """Make a recipe from plain data; an empty section may be left out or ``null``.

    Raises:
        RecipeError: the data is not a valid recipe.
    """
    return parse_as(Recipe, data, origin)


def parse_as(kind: type[R], data: object, origin: str = "The recipe") -> R:
    """Like :func:`parse`, for a subclass of Recipe.

    Raises:
        RecipeError: the data is not a valid recipe.
    """
    if not isinstance(data, Mapping):
        allowed = f"expected a mapping with the sections {', '.join(Recipe.model_fields)}"
        raise RecipeError([Problem("recipe", f"got {value_text(data)}", allowed)], origin)
    try:
        return kind.model_validate(
            {key: {} if value is None and key in Recipe.model_fields else value for key, value in data.items()}
        )
    except ValidationError as error:
        raise RecipeError(problems_of(error), origin) from None


def parse_usable(data: Mapping[str, object]) -> tuple[Recipe, list[Problem]]:
    """Make a recipe from plain data, using defaults in place of invalid values; returns it with all mistakes."""
    problems: list[Problem] = []
    while True:
        try:
            return parse(data), problems
        except RecipeError as error:
            problems += error.problems
            usable = _without(data, [problem.path for problem in error.problems])
            if usable == data:
                return Recipe(), problems
            data = usable


def _without(data: Mapping[str, object], paths: Sequence[str]) -> dict[str, object]:
    """The data without these dotted keys; if a section has no such key, without the whole section."""
    remaining = {key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    for path in paths:
        section, _, name = path.partition(".")
        if path not in remaining and isinstance(inner := remaining.get(section), dict) and name in inner:
            del inner[name]
        else:
            remaining.pop(path if path in remaining else section, None)
    return remaining


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper that escapes U+0085, which would be read back as a line end within quotes."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if "\x85" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
# A text that the loader reads as a number is written in quotes.
_Dumper.add_implicit_resolver(*_NUMBERS)


def as_yaml(data: object, width: int = 120) -> str:
    """Write plain data as YAML, in its own order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


def as_flow_yaml(data: object) -> str:
    """Write plain data as YAML on one line, such as ``[{source: a.jsonl, weight: 2.0}]``."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9, default_flow_style=True)
    return text.strip()


def parse_value(text: str) -> object:
    """Read a value as YAML.

    Raises:
        ValueError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ValueError("not YAML") from None


def from_yaml(text: str, origin: str = "The recipe") -> Recipe:
    """Make a recipe from YAML text.

    Raises:
        RecipeError: the text is not YAML, or not a valid recipe.
    """
    return parse(_data_of(text, origin), origin)


def _data_of(text: str, origin: str) -> object:
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        reason = getattr(error, "problem", None) or "cannot be read"
        raise RecipeError([Problem(where, str(reason), "expected YAML")], origin) from None
    return {} if data is None else data


def to_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML; :func:`from_yaml` reads it back into an equal recipe."""
    return as_yaml(recipe.as_dict())


def read(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        WorkbenchError: the file is missing or unreadable, or the recipe in it has mistakes.
    """
    return parse(read_data(path), origin=str(path))


def read_data(path: Path) -> object:
    """Read the plain data of a recipe file without validating it.

    Raises:
        WorkbenchError: the file is missing, unreadable, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise WorkbenchError(
            f"No such recipe file: {path}.", "Give a YAML file, or a preset's name.", kind="no_recipe"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"Cannot read the recipe {path}: {error}.", "Give a readable YAML file.") from None
    return _data_of(text, origin=str(path))


def parse_assignment(text: str) -> tuple[str, object]:
    """Split ``adapter.r=64`` into ``("adapter.r", 64)``; the value is read as YAML.

    Raises:
        WorkbenchError: the text has no ``=``, or the value is not YAML.
    """
    path, sign, value = text.partition("=")
    if not sign:
        raise WorkbenchError(f"--set {text} has no value.", "Write it as --set adapter.r=64.")
    try:
        return path.strip(), parse_value(value)
    except ValueError:
        raise WorkbenchError(
            f"--set {text}: the value cannot be read.", "Quote it, or write lists as [a, b]."
        ) from None


def on_base(recipe: R, source: str) -> R:
    """The recipe with another source of its base model; the same recipe if ``source`` is empty."""
    changes = {"model.source": source, "model.revision": None, "model.subfolder": None}
    return edit(recipe, changes) if source else recipe


def choosing_model(recipe: Recipe, source: str) -> dict[str, object]:
    """The changes by which a recipe takes a model: what was set for the one before does not hold for another one."""
    changes: dict[str, object] = {"model.source": source}
    if source != recipe.model.source:
        changes |= {"model.revision": None, "model.subfolder": None, "model.trust_remote_code": False}
    return changes


def edit(recipe: R, changes: Mapping[str, object]) -> R:
    """Copy a recipe with some dotted keys changed, as in ``edit(recipe, {"adapter.r": 64})``.

    ``{"adapter.lora_alpha": None}`` links alpha to the rank again. The copy is of the same class; a
    :class:`~workbench.recipe.resolved.ResolvedRecipe` does not accept ``auto``. Another ``objective.kind`` brings its
    own loss, unless it has the one of before or the changes name one.

    Raises:
        RecipeError: a key or value is not allowed.
    """
    changed: dict[str, object] = {**recipe.as_dict()}
    for path, value in changes.items():
        section, dot, name = path.partition(".")
        if not dot:
            changed[section] = value
        elif isinstance(values := changed.setdefault(section, {}), dict):
            if path == "adapter.lora_alpha" and value is None:
                values.pop("lora_alpha", None)
            else:
                values[name] = value
    if "objective.kind" in changes and "objective.loss_type" not in changes:
        _drop_foreign_loss(changed["objective"])
    return parse_as(type(recipe), changed)


def _drop_foreign_loss(objective: object) -> None:
    """Remove a loss that only other objectives have from the values of the section."""
    if isinstance(objective, dict):
        spec = OBJECTIVES.get(str(objective.get("kind")))
        if spec is not None and objective.get("loss_type") not in spec.loss_types:
            objective.pop("loss_type", None)
