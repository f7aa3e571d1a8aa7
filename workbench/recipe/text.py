"""Recipes as text: YAML in and out, dotted changes, and every mistake at once."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from workbench.errors import Problem, WorkbenchError
from workbench.recipe.schema import EXCLUDED, Recipe

R = TypeVar("R", bound=Recipe)


class RecipeError(WorkbenchError):
    """A recipe that cannot be used, with all that is wrong in it.

    Args:
        problems: every mistake, in the order of the recipe.
        origin: the file or preset it came from.
    """

    def __init__(self, problems: list[Problem], origin: str = "The recipe") -> None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{origin} has {count}:\n{lines}", kind="recipe", problems=problems)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with ``2e-4`` read as a number (YAML 1.1 calls it a string) and no key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse(data: object, origin: str = "The recipe") -> Recipe:
    """A recipe from plain data; an empty section may be left out or ``null``.

    Raises:
        RecipeError: with every mistake in it.
    """
    return parse_as(Recipe, data, origin)


def parse_as(kind: type[R], data: object, origin: str = "The recipe") -> R:
    """As :func:`parse`, for a narrower kind of recipe.

    Raises:
        RecipeError: with every mistake in it.
    """
    if not isinstance(data, Mapping):
        allowed = f"expected a mapping with the sections {', '.join(Recipe.model_fields)}"
        raise RecipeError([Problem("recipe", f"got {_show(data)}", allowed)], origin)
    try:
        return kind.model_validate(
            {key: {} if value is None and key in Recipe.model_fields else value for key, value in data.items()}
        )
    except ValidationError as error:
        raise RecipeError(_problems(error), origin) from None


def parse_usable(data: Mapping[str, Any]) -> tuple[Recipe, list[Problem]]:
    """A recipe from plain data, in which keys that cannot be used have their defaults; and what is wrong with them."""
    found: list[Problem] = []
    while True:
        try:
            return parse(data), found
        except RecipeError as error:
            found += error.problems
            usable = _without(data, [problem.path for problem in error.problems])
            if usable == data:
                return Recipe(), found
            data = usable


def _without(data: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The data without these dotted keys, or without the whole section where it has no such key."""
    left = {key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    for path in paths:
        section, _, name = path.partition(".")
        if path not in left and isinstance(inner := left.get(section), dict) and name in inner:
            del inner[name]
        else:
            left.pop(path if path in left else section, None)
    return left


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, with U+0085 written as an escape: within quotes it would come back as an end of line."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if "\x85" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def as_yaml(data: object, width: int = 120) -> str:
    """Plain data as YAML, in the order it has."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


def from_yaml(text: str, origin: str = "The recipe") -> Recipe:
    """A recipe from YAML text.

    Raises:
        RecipeError: the text is no YAML, or with every mistake in it.
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
    """YAML that :func:`from_yaml` reads back into an equal recipe."""
    return as_yaml(recipe.as_dict())


def read(path: Path) -> Recipe:
    """A recipe from a file.

    Raises:
        WorkbenchError: the file is missing or unreadable, or the recipe in it has mistakes.
    """
    return parse(read_data(path), origin=str(path))


def read_data(path: Path) -> object:
    """The plain data of a recipe file, before it is checked.

    Raises:
        WorkbenchError: the file is missing or unreadable, or is no YAML.
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


def parse_assignment(text: str) -> tuple[str, Any]:
    """``adapter.r=64`` → ``("adapter.r", 64)``; the value is read as YAML.

    Raises:
        WorkbenchError: there is no ``=`` in it, or the value is no YAML.
    """
    path, sign, value = text.partition("=")
    if not sign:
        raise WorkbenchError(f"--set {text} has no value.", "Write it as --set adapter.r=64.")
    try:
        return path.strip(), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise WorkbenchError(
            f"--set {text}: the value cannot be read.", "Quote it, or write lists as [a, b]."
        ) from None


def edit(recipe: R, changes: Mapping[str, Any]) -> R:
    """A copy with dotted keys changed: ``{"adapter.r": 64}``. ``{"adapter.lora_alpha": None}`` links alpha again.

    A recipe in which nothing is ``auto`` stays one: ``auto`` is a mistake there.

    Raises:
        RecipeError: with every mistake in it.
    """
    changed: dict[str, Any] = {section: dict(values) for section, values in recipe.as_dict().items()}
    for path, value in changes.items():
        section, dot, name = path.partition(".")
        if not dot:
            changed[section] = value
        elif path == "adapter.lora_alpha" and value is None:
            changed["adapter"].pop("lora_alpha", None)
        elif isinstance(place := changed.setdefault(section, {}), dict):
            place[name] = value
    return parse_as(type(recipe), changed)


def known_paths() -> list[str]:
    """Every dotted key of a recipe, in order."""
    return [
        f"{section}.{name}"
        for section, info in Recipe.model_fields.items()
        for name in info.annotation.model_fields  # type: ignore[union-attr]
    ]


def _problems(error: ValidationError) -> list[Problem]:
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"][:2])
        if detail["type"] == "extra_forbidden":
            found[path] = Problem(path, "unknown key", _keys_allowed(path), _nearest(path))
        elif detail["type"] == EXCLUDED:
            told = detail["ctx"]
            found[told["path"]] = Problem(told["path"], told["given"], told["allowed"])
        elif path in known_paths():
            found.setdefault(path, Problem(path, f"got {_show(detail['input'])}", f"expected {allowed_values(path)}"))
        else:
            found[path] = Problem(
                path,
                f"got {_show(detail['input'])}",
                f"expected a section with keys {_keys_allowed(path + '.').removeprefix('allowed: ')}",
            )
    return list(found.values())


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _keys_allowed(path: str) -> str:
    section, dot, _ = path.partition(".")
    if dot and section in Recipe.model_fields:
        return "allowed: " + ", ".join(p.partition(".")[2] for p in known_paths() if p.startswith(section + "."))
    return "allowed: " + ", ".join(Recipe.model_fields)


def _nearest(path: str) -> str | None:
    if "." not in path:
        return next(iter(difflib.get_close_matches(path, list(Recipe.model_fields), n=1, cutoff=0.5)), None)
    section, _, name = path.partition(".")
    by_name = {p.partition(".")[2]: p for p in known_paths()}
    here = {n: p for n, p in by_name.items() if p.startswith(section + ".")}
    for names in (here, by_name):
        if match := difflib.get_close_matches(name, list(names), n=1, cutoff=0.6):
            return names[match[0]]
    return None


def allowed_values(path: str) -> str:
    """What may stand at a dotted key, in words: ``a whole number from 1 to 8192``."""
    section, _, name = path.partition(".")
    schema = Recipe.model_fields[section].annotation.model_json_schema()["properties"][name]  # type: ignore[union-attr]
    return " or ".join(_option(option) for option in schema.get("anyOf", [schema]))


def _option(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "nothing",
    }
    if kind == "object":
        values = "names" if schema.get("additionalProperties", {}).get("type") == "string" else "whole numbers"
        return f"a mapping of names to {values}"
    if kind == "array":
        items = schema.get("items", {})
        item = ", ".join(items.get("enum", [])) or ("whole numbers" if items.get("type") == "integer" else "names")
        return f"a list of {item}"
    text = words.get(str(kind), "a value")
    if "pattern" in schema:
        text += " of letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit"
    low = next(
        (
            f"{word} {schema[key]}"
            for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"))
            if key in schema
        ),
        "",
    )
    high = next(
        (f"{word} {schema[key]}" for key, word in (("maximum", "to"), ("exclusiveMaximum", "below")) if key in schema),
        "",
    )
    return " ".join(part for part in (text, low, high) if part)
