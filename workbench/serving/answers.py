"""The answers of OpenAI's API: a whole reply, or the chunks of one that is being generated."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from workbench.data.templates.reply_form import ReplySplitter
from workbench.data.templates.template import Template
from workbench.serving.draw import TokenChoice
from workbench.serving.reply import Reply

Json = dict[str, Any]


class Answer(Protocol):
    """Turns a reply into the JSON of its endpoint."""

    def begin(self) -> list[Json]:
        """The chunks before the reply."""

    def add(self, text: str, logprobs: Json | None) -> list[Json]:
        """The chunks for new text."""

    def end(self, reply: Reply) -> list[Json]:
        """The chunks after the reply, with the reason why it ended."""

    def whole(self, reply: Reply, logprobs: Json | None, usage: Json) -> Json:
        """The answer to a request that is not streamed."""

    def usage_chunk(self, usage: Json) -> Json:
        """The chunk that a client may ask for at the end of a stream."""


@dataclass
class ChatAnswer:
    """Answers ``/v1/chat/completions``.

    With ``tools`` the answer of a stream is sent when it is whole, since only then it is known which part of it calls
    a tool; reasoning is sent as it comes.
    """

    model: str
    template: Template
    tools: Sequence[Json]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self._splitter = ReplySplitter(self.template.reply_form)

    def begin(self) -> list[Json]:
        return [self._chunk({"role": "assistant", "content": ""})]

    def add(self, text: str, logprobs: Json | None) -> list[Json]:
        return self._pieces(text, logprobs)

    def end(self, reply: Reply) -> list[Json]:
        chunks = self._pieces("", None, final=True)
        message = self._message(reply)
        if self.tools and message["content"]:
            chunks.append(self._chunk({"content": message["content"]}))
        if calls := message.get("tool_calls"):
            chunks.append(self._chunk({"tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]}))
        return [*chunks, self._chunk({}, reason=_reason(message, reply))]

    def whole(self, reply: Reply, logprobs: Json | None, usage: Json) -> Json:
        message = self._message(reply)
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": _reason(message, reply)}
        return self._frame("chat.completion", [choice]) | {"usage": usage}

    def usage_chunk(self, usage: Json) -> Json:
        return self._frame("chat.completion.chunk", []) | {"usage": usage}

    def _pieces(self, text: str, logprobs: Json | None, *, final: bool = False) -> list[Json]:
        pieces = self._splitter.feed(text, final=final)
        deltas = [
            {"reasoning_content": piece.text} if piece.is_reasoning else {"content": piece.text}
            for piece in pieces
            if piece.is_reasoning or not self.tools
        ]
        if logprobs and not deltas:
            deltas = [{}]
        return [self._chunk(delta, logprobs=logprobs if place == 0 else None) for place, delta in enumerate(deltas)]

    def _message(self, reply: Reply) -> Json:
        read = self.template.reply_form.read(reply.text, self.tools)
        message: Json = {"role": "assistant", "content": read["content"]}
        if read.get("reasoning_content"):
            message["reasoning_content"] = read["reasoning_content"]
        if read.get("tool_calls"):
            message["tool_calls"] = [_call(call["function"]) for call in read["tool_calls"]]
        return message

    def _chunk(self, delta: Json, *, logprobs: Json | None = None, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._frame("chat.completion.chunk", [choice])

    def _frame(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


@dataclass
class CompletionAnswer:
    """Answers ``/v1/completions``."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def begin(self) -> list[Json]:
        return []

    def add(self, text: str, logprobs: Json | None) -> list[Json]:
        return [self._frame([_text_choice(text, logprobs, None)])]

    def end(self, reply: Reply) -> list[Json]:
        return [self._frame([_text_choice("", None, reply.reason)])]

    def whole(self, reply: Reply, logprobs: Json | None, usage: Json) -> Json:
        return self._frame([_text_choice(reply.text, logprobs, reply.reason)]) | {"usage": usage}

    def usage_chunk(self, usage: Json) -> Json:
        return self._frame([]) | {"usage": usage}

    def _frame(self, choices: list[Json]) -> Json:
        return {
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "choices": choices,
        }  # fmt: skip


def chat_logprobs(choices: Sequence[TokenChoice], texts: Mapping[int, str]) -> Json:
    """Log probabilities as chat completions have them; ``texts`` decodes single tokens."""

    def entry(token: int, logprob: float) -> Json:
        return {"token": texts[token], "logprob": logprob, "bytes": list(texts[token].encode())}

    return {
        "content": [
            entry(choice.token, choice.logprob) | {"top_logprobs": [entry(*other) for other in choice.top]}
            for choice in choices
        ]
    }


def completion_logprobs(choices: Sequence[TokenChoice], texts: Mapping[int, str]) -> Json:
    """Log probabilities as completions have them."""
    tokens = [texts[choice.token] for choice in choices]
    return {
        "tokens": tokens,
        "token_logprobs": [choice.logprob for choice in choices],
        "top_logprobs": [{texts[token]: value for token, value in choice.top} for choice in choices],
        "text_offset": [sum(map(len, tokens[:place])) for place in range(len(tokens))],
    }


def _text_choice(text: str, logprobs: Json | None, reason: str | None) -> Json:
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _reason(message: Json, reply: Reply) -> str | None:
    return "tool_calls" if message.get("tool_calls") and reply.reason == "stop" else reply.reason


def _call(function: Mapping[str, Any]) -> Json:
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{uuid4().hex[:24]}", "type": "function", "function": {"name": function["name"], "arguments": text},
    }  # fmt: skip
