"""Tools and calls of tools in the form that transformers' chat templates expect, whatever form a record has them in.

The form is OpenAI's, with arguments as an object where they are JSON:
``{"type": "function", "function": {"name": …, "arguments": {…}}}``.
"""

import json
from typing import Any

from workbench.data.records.conversation import BadRecord
from workbench.data.records.values import as_structure, is_blank, type_in_words, without_nulls


def read_tools(value: object, where: str) -> list[dict[str, Any]]:
    """The functions of a ``tools`` column: a list or its JSON text, each bare or under ``function``.

    Raises:
        BadRecord: it is something else.
    """
    if is_blank(value):
        return []
    tools = without_nulls(_objects(value) or as_structure(value, where, "a list of tools"))
    tools = [tools] if isinstance(tools, dict) else tools
    if not isinstance(tools, list):
        raise BadRecord(f"{where} is {type_in_words(tools)}, expected a list of tools")
    return [_tool(as_structure(tool, where, "a list of tools"), where) for tool in tools]


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
    return {**tool, "function": function} if "function" in tool else {"type": "function", "function": tool}


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
    around = {key: member for key, member in call.items() if key != "function"} if function is not call else {}
    arguments = function.get("arguments", function.get("parameters", {}))
    called = {"name": function["name"], "arguments": _arguments(arguments)}
    return {"type": "function", **around, "function": called}


def _arguments(value: object) -> Any:
    """An object where the arguments are JSON text of one; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, dict) else value


def with_arguments_as_text(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same calls, their arguments as JSON text."""
    return [
        {**call, "function": {**call["function"], "arguments": _as_json(call["function"]["arguments"])}}
        for call in calls
    ]


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
