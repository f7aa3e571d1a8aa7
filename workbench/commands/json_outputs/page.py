"""Writes docs/cli.md from the table of outputs: ``python -m workbench.commands.json_outputs.page``."""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from workbench.commands.json_outputs.outputs import EVENTS, OUTPUTS, JsonOutput
from workbench.commands.json_outputs.schema import event_schemas, meanings, resolve, schema_of
from workbench.recipe.schema import Recipe

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"

_HEAD = """\
# JSON of the commands

<!-- made by python -m workbench.commands.json_outputs.page: change the types in workbench/commands/json_outputs/ -->

With `--json` a command prints JSON on standard output, one value per line, and nothing else there; progress and
warnings go to standard error. An error is a message on standard error and exit code 1, with Ctrl-C 130. A key is never
renamed or removed; new ones may be added, so ignore those that you do not know.

Sizes are in bytes, times are Unix times in seconds, durations are in seconds. A number that is not finite is the text
`nan`, `inf` or `-inf`. `?` marks a key that may be absent, `null` a value that may be unknown. `[]` is any item of a
list, `*` any key of an object. `tests/command_line.py` checks each output that a test reads against these tables.
"""

_EVENTS = """
## Events

The lines of a run's journal, as `train` and `attach` print them and `runs/<id>/journal.jsonl` stores them. Each has
`seq`, its number from 0; `time`; and `event`, its type. Keys without a value are absent.
"""


def page() -> str:
    """The page."""
    parts = [_HEAD]
    described: dict[str, str] = {}
    for command, outputs in groupby(OUTPUTS, key=lambda output: output.command):
        parts.append(f"\n## `{command}`\n")
        parts += [_section(output, described) for output in outputs]
    return "".join([*parts, _EVENTS, *map(_event, event_schemas().items())])


def _section(output: JsonOutput, described: dict[str, str]) -> str:
    """The lines of one output.

    Args:
        described: the commands under which types were described, by type; extended.
    """
    case = f"With `{output.case}`: " if output.case else ""
    words = case + output.lines
    text = f"\n{words[0].upper()}{words[1:]}.\n"
    for kind in output.kinds:
        if kind == EVENTS:
            text += "\nThe events are [below](#events).\n"
        elif first := described.get(repr(kind)):
            text += f"\nAs [`{first}`](#{first.replace(' ', '-')}).\n"
        elif kind is not Recipe:
            described[repr(kind)] = output.command
            text += _table(schema_of(kind, output))
    return text


def _table(schema: Mapping[str, Any]) -> str:
    top = resolve(schema, schema)
    prefix = ""
    if top.get("type") == "array":
        top, prefix = resolve(top["items"], schema), "[]."
    rows = "\n".join(f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in _rows(top, schema, prefix, {}))
    return f"\n{_first_paragraph(top)}\n\n| key | value | meaning |\n|---|---|---|\n{rows}\n"


def _event(named: tuple[str, Mapping[str, Any]]) -> str:
    name, schema = named
    rows = [row for row in _rows(schema, schema, "", {}) if row[0] not in ("seq?", "time?", "event", "more?")]
    listed = "\n".join(f"| `{key}` | {kind} | {meaning} |" for key, kind, meaning in rows)
    table = f"\n| key | value | meaning |\n|---|---|---|\n{listed}\n" if rows else ""
    return f"\n### `{name}`\n\n{_first_paragraph(schema)}\n{table}"


def _rows(
    schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str, seen: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    """A row per key, also of the objects inside.

    Args:
        seen: where the keys of a type are listed, by its name; extended.
    """
    said = meanings(schema)
    for name, value in schema.get("properties", {}).items():
        optional = "" if name in schema.get("required", ()) else "?"
        meaning = _cell(said.get(name, "") or ("" if "$ref" in value else str(value.get("description", ""))))
        place = f"{prefix}{name}"
        inner, deeper = _inner(value, root)
        title = str(inner.get("title", place)) if inner else place
        if inner and title in seen:
            meaning = "; ".join(filter(None, [meaning, f"keys as of `{seen[title]}`"]))
        yield place + optional, _kind(value, root), meaning
        if inner and title not in seen:
            seen[title] = place + deeper
            yield from _rows(inner, root, f"{place}{deeper}.", seen)


def _inner(value: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The object with named keys that a value is or holds, and how its keys are reached."""
    found = resolve(value, root)
    for option in found.get("anyOf", ()):
        if option.get("type") != "null":
            found = resolve(option, root)
            break
    if found.get("type") == "array" and isinstance(found.get("items"), dict):
        inner, deeper = _inner(found["items"], root)
        return inner, "[]" + deeper
    if "properties" in found:
        return found, ""
    if isinstance(more := found.get("additionalProperties"), dict):
        inner, deeper = _inner(more, root)
        return inner, ".*" + deeper
    return None, ""


def _kind(value: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    found = resolve(value, root)
    if "anyOf" in found:
        return " or ".join(dict.fromkeys(_kind(option, root) for option in found["anyOf"]))
    if "enum" in found:
        return ", ".join(f"`{one}`" for one in found["enum"])
    if "const" in found:
        return f"`{found['const']}`"
    match found.get("type"):
        case "array":
            items = found.get("items") or {}
            return f"list of {_kind(items, root)}" if items else "list"
        case "object":
            more = found.get("additionalProperties")
            return f"object of {_kind(more, root)}" if isinstance(more, dict) and more else "object"
        case list() as kinds:
            return " or ".join(kinds)
        case str() as kind:
            return {"boolean": "true, false", "string": "text"}.get(kind, kind)
    return "any"


def _first_paragraph(schema: Mapping[str, Any]) -> str:
    """The first paragraph of a type's docstring."""
    return _cell(str(schema.get("description", "")).partition("\n\n")[0]) + "."


def _cell(text: str) -> str:
    """Words of a docstring in the terms of JSON and Markdown."""
    for python, json in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"\b{python}\b", json, text)
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").rstrip(".;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
