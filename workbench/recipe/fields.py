"""What a form needs to know of a field of the recipe, read off the recipe itself."""

from typing import Any, Literal

from pydantic import BaseModel

from workbench.recipe.schema import Recipe

KnobKind = Literal["integer", "number", "switch", "choice", "text", "list", "mapping"]


class Knob(BaseModel):
    """What a form needs to know of one field of the recipe."""

    path: str
    name: str
    kind: KnobKind
    help: str
    up: str
    unit: str
    choices: list[str]
    steps: list[float]
    default: Any


def knob_of(path: str) -> Knob:
    """The field at a dotted path.

    Raises:
        KeyError: there is no such field.
    """
    section, _, name = path.partition(".")
    info = Recipe.model_fields[section].annotation.model_fields[name]  # type: ignore[union-attr]
    schema = Recipe.model_fields[section].annotation.model_json_schema()["properties"][name]  # type: ignore[union-attr]
    options = schema.get("anyOf", [schema])
    choices = [str(value) for option in options for value in option.get("enum", [])]
    types = {option.get("type") for option in options}
    by_type: dict[str, KnobKind] = {
        "array": "list",
        "object": "mapping",
        "number": "number",
        "integer": "integer",
        "boolean": "switch",
    }
    kind: KnobKind = "choice" if choices else next((by_type[name] for name in by_type if name in types), "text")
    if choices and "boolean" in types:
        choices = ["true", *choices]
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    return Knob(
        path=path,
        name=name,
        kind=kind,
        help=info.description or "",
        up=str(extra["up"]),
        unit=str(extra["unit"]),
        choices=choices,
        steps=extra["steps"],
        default=info.get_default(call_default_factory=True),
    )
