"""A conversation as training and chat take it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

# A chat message in the form that transformers' chat templates expect: "role" (system, user, assistant or tool) and
# "content", for a call of tools "tool_calls" too, and any other key that the record has, such as "reasoning_content".
# A user message of an instruction record with an input also holds both apart ("instruction", "input").
Message = dict[str, Any]


class BadRecord(Exception):  # noqa: N818  (a reason to skip, not a failure)
    """A record that cannot be used for training; the message says why."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of one record.

    Attributes:
        tools: JSON schemas of the functions that the assistant may call, as ``apply_chat_template(tools=…)`` takes
            them.
        untrained: places in ``messages`` of responses that the record excludes from the loss.
        changes: what was done to the record's turns, in words that can be counted over many records.
        template_kwargs: settings that the record hands to its chat template, such as ``enable_thinking``; TRL's
            ``chat_template_kwargs``.
        origins: by key of messages, or ``tools``, the column that it was read from, to name it by.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    untrained: frozenset[int] = frozenset()
    changes: tuple[str, ...] = ()
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def responses(self) -> list[int]:
        """Places in ``messages`` of the assistant's turns."""
        return [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]

    def first(self, count: int) -> "Conversation":
        """The conversation of the first ``count`` messages."""
        if count >= len(self.messages):
            return self
        # ``dataclasses.replace`` takes four times as long, and this runs for each response.
        return Conversation(
            self.messages[:count], self.tools, self.untrained, self.changes, self.template_kwargs, self.origins
        )

    def by_response(self) -> Iterator["Conversation"]:
        """The conversation up to each of its trained responses, with that one trained alone."""
        responses = self.responses
        for number, place in enumerate(responses):
            if place not in self.untrained:
                yield replace(self.first(place + 1), untrained=frozenset(responses[:number]))

    @property
    def texts(self) -> list[str]:
        """The text of each turn."""
        return [message["content"] for message in self.messages]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to the same prompt, for preference training: both whole conversations, or both plain text.

    The turns (or the text) that both begin with are the prompt; ``untrained`` of the conversations lists its responses.
    """

    chosen: Conversation | str
    rejected: Conversation | str

    @property
    def texts(self) -> list[str]:
        """The text of each turn of both sides; of the prompt twice."""
        return [
            text for side in (self.chosen, self.rejected) for text in ([side] if isinstance(side, str) else side.texts)
        ]


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A conversation whose last response is good or bad; ``untrained`` lists the others."""

    response: Conversation
    good: bool

    @property
    def texts(self) -> list[str]:
        """The text of each turn."""
        return self.response.texts


class Segment(NamedTuple):
    """A stretch of text, and whether it is trained."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Segments:
    """Text in segments, which no template surrounds."""

    segments: tuple[Segment, ...]

    @property
    def texts(self) -> list[str]:
        """The text of each segment."""
        return [segment.text for segment in self.segments]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.texts)

    @property
    def last_trained(self) -> int:
        """The place of the last trained segment; -1 if none is."""
        return max((place for place, segment in enumerate(self.segments) if segment.trained), default=-1)

    def with_last_trained(self) -> "Segments":
        """The same segments, of those that are trained only the last one."""
        last = self.last_trained
        return Segments(tuple(Segment(segment.text, place == last) for place, segment in enumerate(self.segments)))


@dataclass(frozen=True, slots=True)
class Labeled:
    """A text or a conversation, and its label, for classification."""

    content: Conversation | str
    label: str

    @property
    def texts(self) -> list[str]:
        """The text of each turn, or the text."""
        return [self.content] if isinstance(self.content, str) else self.content.texts


Content = Conversation | Pair | Unpaired | Labeled | Segments | str
"""What a record holds: a conversation, responses to learn from, something labeled, segments, or plain text."""


def chosen_side(content: Content) -> Conversation | Segments | str:
    """A record's conversation or text; of a pair, its chosen side."""
    match content:
        case Pair():
            return content.chosen
        case Unpaired():
            return content.response
        case Labeled():
            return content.content
        case _:
            return content
