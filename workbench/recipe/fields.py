"""Describes the recipe's settings for a form: kind, help text, choices and step values of each."""

from typing import Literal

from pydantic import BaseModel

from workbench.adapters.registry import method_of, methods
from workbench.recipe.schema import section_models
from workbench.recipe.sections.adapter import AdapterSection

SettingKind = Literal["integer", "number", "switch", "choice", "text", "list", "mapping"]

_KINDS: dict[str, SettingKind] = {
    "array": "list",
    "object": "mapping",
    "number": "number",
    "integer": "integer",
    "boolean": "switch",
}
"""The kind of a setting for each JSON Schema type; where a setting allows several types, the first one listed here."""


class Setting(BaseModel):
    """What a form needs to know about one setting of the recipe.

    Attributes:
        path: its dotted key, such as ``adapter.r``.
        help: what the value means.
        up: the effect of a higher value.
        steps: values that the arrow keys step through.
    """

    path: str
    name: str
    kind: SettingKind
    help: str
    up: str
    unit: str
    choices: list[str]
    steps: list[float]
    default: object


def setting_of(path: str) -> Setting:
    """Describe the setting at a dotted key.

    Raises:
        KeyError: there is no such setting.
    """
    section, _, name = path.partition(".")
    model = section_models()[section]
    info = model.model_fields[name]
    schema = model.model_json_schema()["properties"][name]
    options = schema.get("anyOf", [schema])
    choices = [str(value) for option in options for value in option.get("enum", [])]
    types = {option.get("type") for option in options}
    kind: SettingKind = "choice" if choices else next((_KINDS[name] for name in _KINDS if name in types), "text")
    if choices and "boolean" in types:
        choices = ["true", *choices]
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    steps = extra["steps"]
    assert isinstance(steps, list)
    return Setting(
        path=path,
        name=name,
        kind=kind,
        help=info.description or "",
        up=str(extra["up"]),
        unit=str(extra["unit"]),
        choices=choices,
        steps=[step for step in steps if isinstance(step, int | float)],
        default=info.get_default(call_default_factory=True),
    )


def unread(method: str) -> dict[str, object]:
    """The dotted keys that an adapter method does not read, with their defaults; ``lora_alpha`` is linked again."""
    every = frozenset[str]().union(*(other.reads for other in methods().values()))
    fields = AdapterSection.model_fields
    values = {name: fields[name].get_default(call_default_factory=True) for name in every - method_of(method).reads}
    if "lora_alpha" in values:
        values["lora_alpha"] = None
    return {"adapter.options": {}} | {f"adapter.{name}": values[name] for name in sorted(values)}
