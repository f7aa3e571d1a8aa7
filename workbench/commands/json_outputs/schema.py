"""JSON Schemas of the outputs: every key that is printed, and no other."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from workbench.commands.json_outputs.outputs import EVENTS, JsonOutput
from workbench.recipe.schema import Recipe
from workbench.runs.events import EVENT_TYPES

Schema = dict[str, Any]


class _AsPrinted(GenerateJsonSchema):
    """Fields with a default are always printed, but for the optional ones of a TypedDict."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        if field["type"] == "typed-dict-field":
            return bool(field.get("required", total))
        return True


def schemas(output: JsonOutput) -> list[Schema]:
    """The schemas of which each line of an output meets one."""
    found: list[Schema] = []
    for kind in output.kinds:
        found += event_schemas().values() if kind == EVENTS else [schema_of(kind, output)]
    return found


def schema_of(kind: Any, output: JsonOutput) -> Schema:
    """The schema of one kind of line, which is not :data:`EVENTS`."""
    if kind is Recipe:  # without its defaults
        return {"type": "object"}
    return _adjusted(_closed(TypeAdapter(kind).json_schema(mode="serialization", schema_generator=_AsPrinted)), output)


def event_schemas() -> dict[str, Schema]:
    """The schema of each event of a journal, by its name."""
    found = {}
    for name, kind in EVENT_TYPES.items():
        # For what a type allows as any value, msgspec asks, and takes no empty schema.
        schema = msgspec.json.schema(kind, schema_hook=lambda _: {"title": "any"})
        found[name] = _closed({**resolve(schema, schema), "$defs": schema["$defs"]})
    return found


def meanings(schema: Mapping[str, Any]) -> dict[str, str]:
    """What the docstring of a type says about its fields, by name: of its ``Attributes``, else of its first lines."""
    text = " ".join(str(schema.get("description", "")).split())
    names = schema.get("properties", {})
    _, _, listed = text.partition("Attributes: ")
    found: dict[str, str] = {}
    # Several are on one line, as in "a, b: their meaning. c: its meaning."
    places = [
        (match.start(), match.end(), [name.strip() for name in match[1].split(",")])
        for match in re.finditer(r"(?:(?<=^)|(?<=[.;] ))((?:\w+, )*\w+): ", listed)
        if all(name.strip() in names for name in match[1].split(","))
    ]
    ends = [start for start, _, _ in places[1:]] + [len(listed)]
    for (_, start, keys), end in zip(places, ends, strict=False):
        found |= dict.fromkeys(keys, listed[start:end].strip())
    return found


def resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference means; any other unchanged."""
    reference = schema.get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if isinstance(reference, str) else schema


def _adjusted(schema: Schema, output: JsonOutput) -> Schema:
    """The schema with the fields that an output leaves out or adds."""
    if not output.without and not output.more:
        return schema
    properties = {name: value for name, value in schema["properties"].items() if name not in output.without}
    properties |= {name: {"type": kind, "description": meaning} for name, (kind, meaning) in output.more.items()}
    required = [name for name in (*schema["required"], *output.more) if name not in output.without]
    return {**schema, "properties": properties, "required": required}


def _closed(schema: Any) -> Any:
    """The schema with no other keys allowed in an object whose keys are named."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
