"""Reads the calls of tools in a reply, in the form in which the model's template writes them.

The form is found by rendering calls with known names and values: what stands around them is the pattern. So there is no
list of models, and what is read as a call is what the template would write for it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from workbench.data.records.conversation import BadRecord, Conversation, Message
from workbench.data.templates.python_calls import PythonCalls
from workbench.data.templates.render import Renderer

_FUNCTIONS = ("probe_first", "probe_second")
_ARGUMENTS = {"probe_key": "probe_value", "probe_other": "probe_thing"}
_JSON = re.compile(r'\{\s*"probe_key"\s*:\s*"probe_value"\s*\}')
_NAME = r"(?P<name>[\w.:/-]+)"
_BARE_KEY = re.compile(r"([{,]\s*)([\w.-]+)\s*:")
# The ids of the probes; where a template writes them, a call has its own.
_ID = "probe123"

ToolCall = dict[str, Any]


@dataclass(frozen=True)
class CallPattern:
    """What a template writes around the parts of a call.

    Two examples, whose line feeds are left out. Qwen 2.5 writes a JSON object of arguments,
    ``<tool_call>{"name": "f", "arguments": {"k": 1}}</tool_call>``: the ``start`` is ``<tool_call>{"name": "``, the
    ``name_end`` is ``", "arguments": ``, the ``end`` is ``}</tool_call>``. GLM 4.5 lists the arguments,
    ``<tool_call>f<arg_key>k</arg_key><arg_value>1</arg_value></tool_call>``: the ``key_end`` is
    ``</arg_key><arg_value>``, and a second key would come after the ``value_end``, ``</arg_value><arg_key>``.

    Attributes:
        start, name_end, end: before the name, after it, and after the arguments.
        key_end, value_end: between a key and its value, and between a value and the next key; empty for a JSON object.
        bare_end: after the name of a call without arguments; empty for a JSON object.
        opens, closes: around all calls of one reply.
        separator: between two calls.
    """

    start: str
    name_end: str
    end: str
    key_end: str = ""
    value_end: str = ""
    bare_end: str = ""
    opens: str = ""
    closes: str = ""
    separator: str = ""

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts without which no call is read."""
        return self.opens, self.start, self.name_end, self.key_end, self.value_end

    def read(self, text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[ToolCall]]:
        """Split a reply into its text and its calls, as ``tool_calls`` of a message has them.

        Args:
            tools: the functions that may be called. Their schemas tell text from other values.
        """
        calls: list[ToolCall] = []
        # `rest` is the text outside of the calls up to `at`, where the last call ends.
        rest, at = "", 0
        for match in re.finditer(_loose(self.start) + _NAME, text):
            found = self._arguments(text, match.end(), _properties(tools, match["name"]))
            if match.start() < at or found is None:
                continue
            arguments, end = found
            called = {"type": "function", "function": {"name": match["name"], "arguments": arguments}}
            given = self._id_pattern.search(text, match.end(), end) if self._id_pattern else None
            calls.append({**called, "id": given["id"]} if given is not None else called)
            before = text[at : match.start()]
            is_separator = len(calls) > 1 and before.strip() == self.separator.strip()
            rest, at = rest + ("" if is_separator else before), end
        if not calls:
            return text, []
        after = text[at:].strip()
        answer = rest.strip().removesuffix(self.opens.strip()).strip()
        # Text after the calls is kept: nothing that the model wrote is lost.
        return "\n".join(part for part in (answer, "" if after == self.closes.strip() else after) if part), calls

    @cached_property
    def _id_pattern(self) -> re.Pattern[str] | None:
        """Matches the id of a call with what is written around it; None if the template writes none."""
        around = next((part for part in (self.name_end, self.end) if _ID in part), None)
        if around is None:
            return None
        before, _, after = around.partition(_ID)
        return re.compile(f"{_loose(before)}(?P<id>[A-Za-z0-9_-]+){_loose(after[1:])}")

    def _arguments(self, text: str, at: int, types: Mapping[str, Any]) -> tuple[dict[str, Any], int] | None:
        """The arguments after a name, and where the call ends; None if they are not in the form of the template."""
        if not self.key_end:
            return self._json_arguments(text, at)
        if self._quote:
            return self._quoted_arguments(text, at)
        return self._listed_arguments(text, at, types)

    @cached_property
    def _quote(self) -> str:
        """The mark that a template puts around text, and around no other value, as Gemma 4's does; else nothing."""
        longest = range(min(len(self.key_end), len(self.value_end)), 0, -1)
        quotes = (self.value_end[:size] for size in longest)
        return next((quote for quote in quotes if quote.strip() and self.key_end.endswith(quote)), "")

    def _quoted_arguments(self, text: str, at: int) -> tuple[dict[str, Any], int] | None:
        """Arguments as ``{city:"Oslo",days:2}``, where ``"`` is the quote: JSON but for the keys and the quote."""
        begin = re.compile(_loose(self.name_end)).match(text, at)
        end = re.compile(_loose(self.end.removeprefix(self._quote))).search(text, at)
        if begin is None or end is None or "{" not in begin[0] or "}" not in end[0]:
            return None
        parts = text[begin.end() : end.start()].split(self._quote)
        parts = [
            json.dumps(part) if number % 2 else _BARE_KEY.sub(r'\1"\2":', part)
            for number, part in enumerate([f"{{{parts[0]}", *parts[1:]])
        ]
        try:
            arguments = json.loads("".join(parts) + "}")
        except (ValueError, RecursionError):
            return None
        return arguments, end.end()

    def _json_arguments(self, text: str, at: int) -> tuple[dict[str, Any], int] | None:
        """Arguments as a JSON object."""
        begin = re.compile(_loose(self.name_end)).match(text, at)
        if begin is None:
            return None
        try:
            arguments, end = json.JSONDecoder().raw_decode(text, begin.end())
        except (ValueError, RecursionError):
            return None
        if not isinstance(arguments, dict):
            return None
        closed = re.compile(_loose(self.end)).match(text, end)
        return arguments, closed.end() if closed is not None else end

    def _listed_arguments(self, text: str, at: int, types: Mapping[str, Any]) -> tuple[dict[str, Any], int] | None:
        """Arguments that are written one by one, as text; ``types`` are their schemas by name."""
        next_key = re.compile(f"{_NAME}{_loose(self.key_end)}")
        value = re.compile(f"(?P<value>.*?)(?:(?P<more>{_loose(self.value_end)})|{_loose(self.end)})", re.DOTALL)
        arguments: dict[str, Any] = {}
        key = re.compile(f"{_loose(self.name_end)}{_NAME}{_loose(self.key_end)}").match(text, at)
        if key is None:
            bare = re.compile(_loose(self.bare_end)).match(text, at) if self.bare_end else None
            return (arguments, bare.end()) if bare is not None else None
        while key is not None:
            given = value.match(text, key.end())
            if given is None:
                return None
            arguments[key["name"]] = _value(given["value"], types.get(key["name"]))
            if given["more"] is None:
                return arguments, given.end()
            key = next_key.match(text, given.end())
        return None


def call_pattern(renderer: Renderer, prompt: str, after_reasoning: str) -> CallPattern | PythonCalls | None:
    """Find the pattern of a template's calls; None if it writes none, or in a form that cannot be read.

    Args:
        prompt: the text of the question "probe", with the prompt for its response.
        after_reasoning: text that ends the reasoning of a response; empty if the template writes none.
    """

    def written(*counts: int) -> str:
        """The text of a response that calls a function for each count, with so many arguments."""
        calls = [_call(number, count) for number, count in enumerate(counts)]
        return _written(renderer, prompt, calls).rpartition(after_reasoning or "\0")[2]

    start, name, rest = written(1).partition(_FUNCTIONS[0])
    if not name:
        return None
    if (python := PythonCalls.found_in(written(2), _FUNCTIONS[0], _ARGUMENTS)) is not None:
        return python
    pattern = _json_pattern(start, rest) or _listed_pattern(start, rest, written(2), written(0))
    if pattern is None:
        return None
    between, second, _ = written(1, 1).partition(_FUNCTIONS[0])[2].partition(_FUNCTIONS[1])
    ends = tuple(token for token in renderer.tokenizer.added_tokens_encoder if token in rest)
    pattern = _limited_to_one_call(pattern, _after_arguments(between) if second else "", ends)
    return pattern if pattern.start.strip() else None


def _call(number: int, arguments: int) -> ToolCall:
    given = dict(list(_ARGUMENTS.items())[:arguments])
    return {
        "type": "function",
        "id": f"{_ID}{number}",
        "function": {"name": _FUNCTIONS[number], "arguments": given},
    }


def _written(renderer: Renderer, prompt: str, calls: list[ToolCall]) -> str:
    messages: list[Message] = [
        {"role": "user", "content": "probe"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    try:
        text = renderer.render(renderer.prepare(Conversation(messages), None), False)
    except BadRecord:
        return ""
    return text[len(common_start(text, prompt)) :]


def _json_pattern(start: str, rest: str) -> CallPattern | None:
    """The pattern of a call with a JSON object of arguments, given what stands before and after its name."""
    found = _JSON.search(rest)
    return CallPattern(start, rest[: found.start()], rest[found.end() :]) if found is not None else None


def _listed_pattern(start: str, rest: str, two_arguments: str, no_arguments: str) -> CallPattern | None:
    """The pattern of a call whose arguments are written one by one."""
    (first, value), (second, _) = _ARGUMENTS.items()
    name_end, key, after_key = rest.partition(first)
    key_end, found, end = after_key.partition(value)
    value_end = two_arguments.partition(value)[2].partition(second)[0]
    if not (key and found and key_end.strip() and value_end.strip()):
        return None
    return CallPattern(start, name_end, end, key_end, value_end, no_arguments.partition(_FUNCTIONS[0])[2])


def _after_arguments(text: str) -> str:
    found = _JSON.search(text)
    return text[found.end() :] if found is not None else text.partition(_ARGUMENTS["probe_key"])[2]


def _limited_to_one_call(pattern: CallPattern, between: str, ends: Sequence[str]) -> CallPattern:
    """The pattern without the end of the turn, and with what the template writes once for several calls moved out.

    Args:
        between: text between the arguments of a call and the name of the next one; empty if only one call is written.
        ends: tokens after a call, one of which ends the turn.
    """
    bare_end = _before_any(pattern.bare_end, ends)
    if not between:
        return replace(pattern, end=_before_any(pattern.end, ends), bare_end=bare_end)
    start = common_start(pattern.start[::-1], between[::-1])[::-1]
    end = common_start(pattern.end, between.removesuffix(start))
    closes = _before_any(pattern.end.removeprefix(end), ends)
    opens = pattern.start.removesuffix(start)
    separator = between.removeprefix(end).removesuffix(start)
    return replace(pattern, start=start, end=end, bare_end=bare_end, opens=opens, closes=closes, separator=separator)


def _before_any(text: str, tokens: Sequence[str]) -> str:
    """The text up to the first of these tokens."""
    return text[: min((text.index(token) for token in tokens if token in text), default=len(text))]


def common_start(first: str, second: str) -> str:
    """The text that both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return first[: next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))]


def _loose(text: str) -> str:
    """A regular expression that finds a text whatever white space is between its words and marks, with any call id."""
    parts = ["[A-Za-z0-9_-]+" if part.startswith(_ID) else re.escape(part) for part in re.findall(r"\w+|[^\w\s]", text)]
    if not parts:
        return r"\s*"
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"(?:{re.escape(before)})?" + r"\s*".join(parts) + f"(?:{re.escape(after)})?"


def _properties(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The schemas of a function's arguments, by name."""
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name:
            parameters = function.get("parameters") or {}
            return parameters.get("properties") or {} if isinstance(parameters, dict) else {}
    return {}


def _value(text: str, schema: object) -> Any:
    """A value that a template writes as text: other values than text are JSON."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind in (None, "string"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
