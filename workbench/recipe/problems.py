"""What is wrong with a recipe: each mistake with its dotted key, what is allowed there, and the nearest known key."""

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workbench.errors import Problem
from workbench.recipe.schema import Recipe, known_paths, section_models
from workbench.recipe.sections.data_source import SourceEntry
from workbench.recipe.sections.section import EXCLUDED

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SOURCE_LIST = "a list of sources such as [{source: a.jsonl, weight: 2}]"


def problems_of(error: ValidationError) -> list[Problem]:
    """Pydantic's errors as one problem per dotted key."""
    problems: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"][:2])
        if path == "data.source" and len(detail["loc"]) > 3:
            problems.setdefault(path, _problem_in_list(path, detail))
        elif detail["type"] == "extra_forbidden":
            problems[path] = Problem(path, "unknown key", _keys_allowed(path), _nearest(path))
        elif detail["type"] == EXCLUDED:
            context = detail["ctx"]
            problems[context["path"]] = Problem(context["path"], context["given"], context["allowed"])
        elif path in known_paths():
            problem = Problem(path, f"got {value_text(detail['input'])}", f"expected {allowed_values(path)}")
            problems.setdefault(path, problem)
        else:
            problems[path] = Problem(
                path,
                f"got {value_text(detail['input'])}",
                f"expected a section with keys {_keys_allowed(path + '.').removeprefix('allowed: ')}",
            )
    return list(problems.values())


def _problem_in_list(path: str, detail: "ErrorDetails") -> Problem:
    """A mistake in one entry of the list form of ``data.source``."""
    _, _, _, index, *keys = detail["loc"]
    entry = f"entry {int(index) + 1}"
    key = str(keys[0]) if keys else ""
    allowed = f"allowed: {', '.join(SourceEntry.model_fields)}"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(SourceEntry.model_fields), n=1, cutoff=0.5)
        return Problem(path, f"{entry}: unknown key {value_text(key)}", allowed, next(iter(near), None))
    if detail["type"] == "missing":
        return Problem(path, f"{entry} has no {key}", allowed)
    if not keys:
        return Problem(path, f"{entry}: got {value_text(detail['input'])}", f"expected {_SOURCE_LIST}")
    schema = SourceEntry.model_json_schema()["properties"][key]
    expected = " or ".join(_allowed(option) for option in schema.get("anyOf", [schema]))
    return Problem(path, f"{entry}, {key}: got {value_text(detail['input'])}", f"expected {expected}")


def value_text(value: object) -> str:
    """A value that was given, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _keys_allowed(path: str) -> str:
    section, dot, _ = path.partition(".")
    if dot and section in Recipe.model_fields:
        return "allowed: " + ", ".join(p.partition(".")[2] for p in known_paths() if p.startswith(section + "."))
    return "allowed: " + ", ".join(Recipe.model_fields)


def _nearest(path: str) -> str | None:
    """The known key most similar to an unknown one, preferring keys of the same section."""
    if "." not in path:
        return next(iter(difflib.get_close_matches(path, list(Recipe.model_fields), n=1, cutoff=0.5)), None)
    section, _, name = path.partition(".")
    by_name = {p.partition(".")[2]: p for p in known_paths()}
    same_section = {n: p for n, p in by_name.items() if p.startswith(section + ".")}
    for names in (same_section, by_name):
        if match := difflib.get_close_matches(name, list(names), n=1, cutoff=0.6):
            return names[match[0]]
    return None


def allowed_values(path: str) -> str:
    """Describe the values allowed at a dotted key, as in ``a whole number from 1 to 8192``."""
    section, _, name = path.partition(".")
    schema = section_models()[section].model_json_schema()["properties"][name]
    options = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return " or ".join(_allowed(option) for option in options)


def _allowed(schema: dict[str, Any]) -> str:
    """Describe the values that one type of a JSON Schema allows."""
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
        kinds = {"string": "names", "integer": "whole numbers"}
        values = kinds.get(schema.get("additionalProperties", {}).get("type"), "values")
        return f"a mapping of names to {values}"
    if kind == "array":
        items = schema.get("items", {})
        if "$ref" in items:
            return _SOURCE_LIST
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
