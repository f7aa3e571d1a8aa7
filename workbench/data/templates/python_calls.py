"""Reads calls of tools in the form of Python, as LFM2 writes them: ``[weather(city='Oslo', days=2)]``."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class PythonCalls:
    """A list of calls between two marks."""

    opens: str
    closes: str

    @classmethod
    def found_in(cls, text: str, function: str, arguments: Mapping[str, str]) -> Self | None:
        """The marks around the call of a function in ``text``; None if it is written in another form."""
        listed = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        opens, call, closes = text.partition(f"[{function}({listed})]")
        closes = re.match(r"\s*(<\S+?>)?", closes)[1] or "" if call else ""  # type: ignore[index]
        return cls(opens.strip(), closes) if opens.strip() and closes else None

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts without which no call is read."""
        return self.opens, self.closes

    def read(self, text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        """Split a reply into its text and its calls, as ``tool_calls`` of a message has them. Nothing is executed."""
        before, opened, rest = text.partition(self.opens)
        listed, _, after = rest.partition(self.closes)
        calls = _calls(listed.strip()) if opened else []
        if not calls:
            return text, []
        return "\n".join(part for part in (before.strip(), after.strip()) if part), calls


def _calls(listed: str) -> list[dict[str, Any]]:
    """The calls in a list of them; nothing unless all are calls of a name with literal keywords."""
    try:
        body = ast.parse(listed, mode="eval").body
        calls = [_call(one) for one in body.elts] if isinstance(body, ast.List) else []
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return []
    return calls


def _call(node: ast.expr) -> dict[str, Any]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError
    arguments = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in node.keywords}
    if "" in arguments:
        raise ValueError
    return {"type": "function", "function": {"name": ast.unparse(node.func), "arguments": arguments}}
