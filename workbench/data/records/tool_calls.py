"""Tools and calls of tools in the form that transformers' chat templates expect, whatever form a record has them in.

The form is OpenAI's, with arguments as an object where they are JSON:
``{"type": "function", "function": {"name": …, "arguments": {…}}}``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.data.records.conversation import BadRecord
from workbench.data.records.values import as_structure, is_blank, type_in_words, without_nulls
from workbench.errors import WorkbenchError

_FUNCTION_KEYS = ("function", "name", "arguments", "parameters")
CALL_KEYS = frozenset({"type", "function", "index"})
"""The keys of a call in OpenAI's form that hold nothing of the record."""


def read_tools(value: object, where: str) -> list[dict[str, Any]]:
    """The functions of a ``tools`` column: a list, an object by name, or JSON text; each bare or under ``function``.

    Raises:
        BadRecord: it is something else.
    """
    if is_blank(value):
        return []
    tools = without_nulls(_objects(value) or as_structure(value, where, "a list of tools"))
    if isinstance(tools, dict):
        tools = [tools] if {"name", "function"} & tools.keys() else _named_by_keys(tools)
    if not isinstance(tools, list):
        raise BadRecord(f"{where} is {type_in_words(tools)}, expected a list of tools")
    return [_tool(as_structure(tool, where, "a list of tools"), where) for tool in tools]


def _named_by_keys(tools: dict[str, Any]) -> list[Any]:
    """The tools of an object that has each one under its name."""
    return [
        {"name": name, **tool} if isinstance(tool, dict) and not {"name", "function"} & tool.keys() else tool
        for name, tool in tools.items()
    ]


def is_tools(value: object) -> bool:
    """Whether a value holds tools."""
    try:
        return bool(read_tools(value, ""))
    except BadRecord:
        return False


def _objects(value: object) -> list[Any]:
    """JSON objects that follow each other in a text, as Glaive's functions do; nothing if it is anything else."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return []
    found: list[Any] = []
    rest = value.lstrip()
    while rest:
        try:
            object_, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return []
        found.append(object_)
        rest = rest[end:].lstrip(" \r\n\t,")
    return found


def _tool(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRecord(f"{where} has a tool without a name")
    if isinstance(function.get("parameters"), str):
        # Parquet files have schemas of different shapes as text.
        function = {**function, "parameters": _parsed(function["parameters"])}
    return {**tool, "function": function} if "function" in tool else {"type": "function", "function": function}


def as_calls(value: object) -> list[Any]:
    """The calls in a response that is nothing but calls of tools, as xLAM's are; nothing if it is anything else."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    calls = [value] if isinstance(value, dict) else value
    if not isinstance(calls, list):
        return []
    return calls if all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls) else []


def read_calls(value: object, where: str) -> list[dict[str, Any]]:
    """The calls of one turn: a list or one of them, or JSON text of that, each bare or under ``function``.

    Raises:
        BadRecord: it is something else.
    """
    calls = without_nulls(as_structure(value, where, "tool calls"))
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not calls:
        raise BadRecord(f"{where} is {type_in_words(calls)}, expected tool calls")
    return [_call(as_structure(call, where, "tool calls"), where) for call in calls]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRecord(f"{where} has a tool call without a name")
    # What else a call holds stays beside its function, where the template may have a use for it.
    around = {key: member for key, member in {**function, **call}.items() if key not in _FUNCTION_KEYS}
    arguments = function.get("arguments", function.get("parameters", {}))
    called = {"name": function["name"], "arguments": _arguments(arguments)}
    return {"type": "function", **around, "function": called}


def _arguments(value: object) -> Any:
    """An object where the arguments are JSON text of one; any other value as it is."""
    return _parsed(value) if isinstance(value, str) else value


def _parsed(text: str) -> Any:
    """The object that a text is JSON of; else the text."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, dict) else text


def with_arguments_as_text(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same calls, their arguments as JSON text."""
    return [
        {**call, "function": {**call["function"], "arguments": _as_json(call["function"]["arguments"])}}
        for call in calls
    ]


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def function_name(tool: Mapping[str, Any]) -> str:
    """The name of the function of a tool, or of a call."""
    return str(tool.get("function", tool).get("name", ""))


def call_text(call: Mapping[str, Any]) -> str:
    """A call for people to read: ``weather(city="Oslo", days=2)``."""
    arguments = call.get("function", call).get("arguments", {})
    if isinstance(arguments, dict):
        listed = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    else:
        listed = str(arguments)
    return f"{function_name(call)}({listed})"


def read_tools_file(path: Path) -> list[dict[str, Any]]:
    """The functions in a JSON file: a list, one function, or an object with ``tools``.

    Raises:
        WorkbenchError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict) and "tools" in content:
            content = content["tools"]
        tools = read_tools(content, "the file")
    except OSError as error:
        raise _no_tools(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        raise _no_tools(path, "it is not JSON") from None
    except BadRecord as error:
        raise _no_tools(path, str(error)) from None
    if not tools:
        raise _no_tools(path, "it has no tools")
    return tools


def _no_tools(path: Path, reason: str) -> WorkbenchError:
    return WorkbenchError(
        f"{path} cannot be used as tools: {reason}.",
        'Give a JSON list of functions: [{"name": …, "description": …, "parameters": {…}}].',
        kind="tools",
    )
