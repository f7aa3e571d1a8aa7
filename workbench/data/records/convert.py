"""Turns one record into a conversation or plain text, and names the fields that this leaves unused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.data.records.conversation import (
    BadRecord,
    Content,
    Conversation,
    Labeled,
    Message,
    Pair,
    Segments,
    Unpaired,
)
from workbench.data.records.formats import AnyFormat, LabeledFormat, PairFormat, RecordFormat, UnpairedFormat
from workbench.data.records.labeled import label_text
from workbench.data.records.layouts import holds_messages, is_turns
from workbench.data.records.order import in_order
from workbench.data.records.parts import read_content
from workbench.data.records.reasoning import REASONING_KEYS, split_thinking
from workbench.data.records.segments import read_segments
from workbench.data.records.tool_calls import as_calls, read_calls, read_tools
from workbench.data.records.transcripts import without_mark
from workbench.data.records.turns import Turn, read_history, read_turns
from workbench.data.records.unused import Unused, unused_columns, unused_value
from workbench.data.records.values import (
    as_structure,
    as_text,
    common_length,
    is_blank,
    is_empty,
    text_of_members,
    without_nulls,
)

EQUAL_SIDES = "chosen and rejected are the same"
# Labels of good and bad responses. 1 and 0 are equal to the truth values, also as keys.
_LABELS: Mapping[object, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
TOOLS_IN_SYSTEM = "Tools that the system prompt already lists are not listed again"


@dataclass(frozen=True, slots=True)
class Converted:
    """A record as a conversation, text or pair, and the fields of it that are not used."""

    content: Content
    unused: tuple[Unused, ...] = ()


def convert(record: Mapping[str, object], form: AnyFormat) -> Converted:
    """A record as a conversation that holds at least one response, as plain text, as a pair of either, or unpaired.

    Raises:
        BadRecord: with the reason, naming the column or turn at fault.
    """
    if isinstance(form, PairFormat):
        return _convert_pair(record, form)
    if isinstance(form, UnpairedFormat):
        return _convert_unpaired(record, form)
    if isinstance(form, LabeledFormat):
        return _convert_labeled(record, form)
    reader = _Reader(record, form)
    content: Conversation | Segments | str
    fed: Conversation | str
    match form.shape:
        case "text":
            content = fed = reader.text("text", needed=True)
        case "segments":
            content = reader.segments()
            fed = content.text
        case _:
            content = fed = reader.conversation()
    unused = unused_columns(record, form.used, fed)
    if reader.left:
        unused = (*(unused_value(path, value, fed) for path, value in reader.left.items()), *unused)
    return Converted(content, unused)


def _convert_pair(record: Mapping[str, object], form: PairFormat) -> Converted:
    """A record as a pair. What neither side uses is unused.

    Raises:
        BadRecord: a side cannot be read, has no response of its own, or is the same as the other.
    """
    one, other = convert(record, form.chosen), convert(record, form.rejected)
    asks = {field.path: field.asks for field in other.unused}
    fields = tuple(Unused(field.path, field.asks and asks[field.path]) for field in one.unused if field.path in asks)
    chosen, rejected = one.content, other.content
    if isinstance(chosen, Conversation) and isinstance(rejected, str):
        # ms-swift has the rejected response alone, beside the whole conversation.
        reply: Message = {"role": "assistant", "content": rejected}
        rejected = replace(chosen, messages=[*chosen.messages[:-1], reply], untrained=frozenset())
    if isinstance(chosen, Conversation) and isinstance(rejected, Conversation):
        return Converted(_parted(chosen, rejected), fields)
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        raise BadRecord("one of chosen and rejected has turns, the other is plain text")
    if chosen == rejected:
        raise BadRecord(EQUAL_SIDES)
    return Converted(Pair(chosen, rejected), fields)


def _convert_unpaired(record: Mapping[str, object], form: UnpairedFormat) -> Converted:
    """A record as an unpaired response: the last one of its conversation.

    Raises:
        BadRecord: it cannot be read, or has no label.
    """
    converted, column = convert(record, form.response), form.columns["label"]
    conversation = converted.content
    assert isinstance(conversation, Conversation)
    label = record.get(column)
    good = _LABELS.get(label.strip().lower() if isinstance(label, str) else label)
    if good is None:
        raise BadRecord(f"column {column} is {'empty' if is_empty(label) else 'neither true nor false'}")
    if not conversation.responses:
        raise BadRecord("no response that the label could be about")
    earlier = frozenset(conversation.responses[:-1])
    return Converted(
        Unpaired(replace(conversation, untrained=conversation.untrained | earlier), good), converted.unused
    )


def _convert_labeled(record: Mapping[str, object], form: LabeledFormat) -> Converted:
    """A record as a text or conversation with its label.

    Raises:
        BadRecord: it cannot be read, or has no label.
    """
    label = label_text(record.get(form.columns["label"]), form.columns["label"])
    converted = convert(record, form.record)
    content = converted.content
    assert isinstance(content, str | Conversation)
    if isinstance(content, str) and "input" in form.columns:
        content = f"{content}\n\n{_Reader(record, form.record).text('input', needed=True)}"
    return Converted(Labeled(content, label), converted.unused)


def _parted(chosen: Conversation, rejected: Conversation) -> Pair:
    """A pair whose common first turns are the prompt."""
    common = common_length(chosen.messages, rejected.messages)
    if common == len(chosen.messages) == len(rejected.messages):
        raise BadRecord(EQUAL_SIDES)
    sides = []
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        prompt = frozenset(place for place in side.responses if place < common)
        if prompt.issuperset(side.responses):
            raise BadRecord(f"{name} has no response after the turns that both begin with")
        sides.append(replace(side, untrained=side.untrained | prompt))
    return Pair(*sides)


@dataclass(frozen=True)
class _Reader:
    """Reads the parts of one record. ``left`` collects what columns that are used hold beside what is used of them."""

    record: Mapping[str, object]
    form: RecordFormat
    left: dict[str, object] = field(default_factory=dict)

    def conversation(self) -> Conversation:
        """The record's turns in order, with its system prompt, tools and reasoning."""
        columns = self.form.columns
        tools, tools_in = self._tools()
        if self.form.shape == "messages":
            if columns["messages"] not in self.record:
                raise BadRecord(f"column {columns['messages']} is missing")
            turns = self._turns("messages")
        else:
            turns = self._prompt() + self._reply(with_tools=bool(tools))
        origins = self._add_reasoning(turns) if "reasoning" in columns else {}
        if "system" in columns:
            self._add_system(turns)
        conversation = in_order(turns)
        if tools and _lists(conversation.messages[0], tools):
            self.left[tools_in] = None
            conversation = replace(conversation, changes=(*conversation.changes, TOOLS_IN_SYSTEM))
        elif tools:
            conversation = replace(conversation, tools=tools)
            origins["tools"] = tools_in
        settings = self._template_kwargs() if "chat_template_kwargs" in columns else {}
        # Copying is slow: most records have neither.
        return replace(conversation, origins=origins, template_kwargs=settings) if origins or settings else conversation

    def segments(self) -> Segments:
        """The record's text in segments."""
        column = self.form.columns["segments"]
        if column not in self.record:
            raise BadRecord(f"column {column} is missing")
        segments, left = read_segments(self.record[column], column)
        self.left.update(left)
        return segments

    def text(self, part: str, needed: bool = False) -> str:
        """The text of a part; empty if the record has none and it is not ``needed``."""
        column = self.form.columns[part]
        value = self.record.get(column)
        if part in ("input", "reply") and not isinstance(value, str):
            value, others = text_of_members(value, several=part == "input")
            self.left.update({f"{column}.{key}": member for key, member in others.items()})
        if part == "system" and isinstance(value, list | dict) and value:
            value = read_content(value, f"column {column}", "system").text
        text = "" if is_empty(value) else as_text(value, f"column {column}")
        if needed and not text.strip():
            raise BadRecord(f"column {column} is {'missing' if column not in self.record else 'empty'}")
        return text

    def _tools(self) -> tuple[list[dict[str, Any]], str]:
        """The tools of the record, and where they are from: a column, or beside the turns in one."""
        columns = self.form.columns
        places = [(columns["tools"], self._value("tools"))] if "tools" in columns else []
        part = "messages" if "messages" in columns else "prompt"
        value = self._opened(part)
        if isinstance(value, dict) and holds_messages(value):
            column = columns[part]
            places += [(f"{column}.{name}", value[name]) for name in ("tools", "functions") if name in value]
        if not places:
            return [], ""
        read = [(read_tools(value, f"column {place}"), place) for place, value in places if not is_blank(value)]
        self.left.update({place: tools for tools, place in read[1:]})
        return read[0] if read else ([], columns.get("tools", ""))

    def _turns(self, part: str) -> list[Turn]:
        """The turns of a part. What a column holds beside them, and their content beside its text, is left."""
        value, column = self._opened(part), self.form.columns[part]
        if isinstance(value, dict) and holds_messages(value):
            others = value.keys() - {"messages", "tools", "functions"}
            self.left.update({f"{column}.{key}": value[key] for key in others if not is_empty(value[key])})
            value = value["messages"]
        turns = read_turns(value, column)
        for turn in turns:
            if turn.left:
                self.left.update(turn.left)
        return turns

    def _opened(self, part: str) -> object:
        """The value of a part; an object that is stored as text is parsed."""
        value = self._value(part)
        is_object = isinstance(value, str) and value.startswith("{") and '"messages"' in value
        return as_structure(value, f"column {self.form.columns[part]}", "turns") if is_object else value

    def _value(self, part: str) -> object:
        column = self.form.columns.get(part)
        return None if column is None else self.record.get(column)

    def _prompt(self) -> list[Turn]:
        columns = self.form.columns
        turns = read_history(self._value("history"), columns["history"]) if "history" in columns else []
        prompt = self._value("prompt")
        extra = self.text("input") if "input" in columns else ""
        if is_turns(prompt):
            asked = [Turn(turn.message, untrained=True) for turn in self._turns("prompt")]
            if extra.strip():
                asked[-1].message["content"] += f"\n\n{extra}"
            # A system prompt comes first.
            return asked[:1] + turns + asked[1:] if asked[0].message["role"] == "system" else turns + asked
        text = self.text("prompt", needed=True)
        message: Message = {"role": "user", "content": text}
        if extra.strip():
            message = {"role": "user", "content": f"{text}\n\n{extra}", "instruction": text, "input": extra}
        return [*turns, Turn(message)]

    def _reply(self, with_tools: bool) -> list[Turn]:
        value, column = self._value("reply"), self.form.columns["reply"]
        if is_turns(value):
            return self._turns("reply")
        if with_tools and (calls := as_calls(value)):
            calls = read_calls(calls, f"column {column}")
            return [Turn({"role": "assistant", "content": "", "tool_calls": calls})]
        return [Turn({"role": "assistant", "content": self.text("reply", needed=True)})]

    def _add_reasoning(self, turns: list[Turn]) -> dict[str, str]:
        """Give a column's reasoning to the response, unless that brings its own. Returns where it is from."""
        column = self.form.columns["reasoning"]
        value = self._value("reasoning")
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if is_empty(value):
            return {}
        reply = turns[-1].message
        own = split_thinking(reply["content"])[0] or any(key in reply for key in REASONING_KEYS)
        if own or reply["role"] != "assistant":
            self.left[column] = value
            return {}
        reply["reasoning_content"] = as_text(value, f"column {column}")
        return {"reasoning_content": column}

    def _add_system(self, turns: list[Turn]) -> None:
        text = without_mark(self.text("system"))
        if not text.strip():
            return
        if turns[0].message["role"] != "system":
            turns.insert(0, Turn({"role": "system", "content": text}))
        elif not turns[0].message["content"].strip():
            turns[0].message["content"] = text
        elif text.strip() != turns[0].message["content"].strip():
            self.left[self.form.columns["system"]] = text

    def _template_kwargs(self) -> dict[str, Any]:
        value = self._value("chat_template_kwargs")
        if is_empty(value):
            return {}
        where = "column chat_template_kwargs"
        given = without_nulls(as_structure(value, where, "an object"))
        if not isinstance(given, dict):
            raise BadRecord(f"{where} is not an object")
        return {str(key): member for key, member in given.items() if not is_empty(member)}


def _lists(message: Message, tools: list[dict[str, Any]]) -> bool:
    """Whether a system prompt already lists each of the tools, as those of Hermes do."""
    if message["role"] != "system":
        return False
    names = (re.escape(tool["function"]["name"]) for tool in tools)
    return all(re.search(rf"""["']name["']\s*:\s*["']{name}["']""", message["content"]) for name in names)
