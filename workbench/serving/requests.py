"""Requests of OpenAI's API: the fields that are used. Any other one is refused by name, never ignored."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workbench.engine.client.protocol import Message, Sampling
from workbench.errors import WorkbenchError

_MAX_ALTERNATIVES = 20


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stops = Annotated[list[str], BeforeValidator(_one_or_many), Field(max_length=4)]


class StreamOptions(BaseModel):
    """``stream_options``: whether the last chunk of a stream has the usage."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class _Request(BaseModel):
    """What both kinds of requests have.

    ``top_k``, ``min_p`` and ``repetition_penalty`` are not OpenAI's, but other servers take them too. ``user``,
    ``metadata`` and ``store`` concern only OpenAI's own service.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = 1
    stop: Stops | None = None
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=0, ge=0, le=1_000_000)
    min_p: float | None = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float | None = Field(default=1.0, gt=0, le=5)
    frequency_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[int, float] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen; a field that is null has OpenAI's default."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            # OpenAI takes negative seeds, PyTorch's generators do not.
            seed=None if self.seed is None else self.seed % 2**63,
        )

    @classmethod
    def read(cls, body: object) -> Self:
        """Check a request's body.

        Raises:
            WorkbenchError: a field is unknown or has a value that cannot be used; names each.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            problems = "; ".join(_problem(detail) for detail in error.errors(include_url=False))
            raise WorkbenchError(f"The request cannot be used: {problems}.", "", kind="bad_request") from None


class ChatRequest(_Request):
    """``POST /v1/chat/completions``."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=_MAX_ALTERNATIVES)
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    @property
    def alternatives(self) -> int | None:
        """How many of the most likely tokens to tell per token; None if no log probabilities are wanted."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def offered_tools(self) -> list[dict[str, Any]]:
        return [] if self.tool_choice == "none" else self.tools or []


class CompletionRequest(_Request):
    """``POST /v1/completions``: a text to continue, without a template."""

    prompt: str | list[int]
    max_tokens: int | None = Field(default=16, ge=1)
    logprobs: int | None = Field(default=None, ge=0, le=_MAX_ALTERNATIVES)
    echo: Literal[False] | None = False
    best_of: Literal[1] | None = 1
    suffix: None = None

    @property
    def alternatives(self) -> int | None:
        return self.logprobs


def to_messages(turns: Sequence[Mapping[str, Any]]) -> list[Message]:
    """OpenAI's turns as the templates expect them.

    Raises:
        WorkbenchError: a turn has a role, a key or a kind of content that would not reach the model.
    """
    called: dict[str, str] = {}
    return [_to_message(place, turn, called) for place, turn in enumerate(turns)]


def _to_message(place: int, turn: Mapping[str, Any], called: dict[str, str]) -> Message:
    where, fields = f"messages[{place}]", {key: value for key, value in turn.items() if value is not None}
    role = {"developer": "system", "function": "tool"}.get(str(fields.pop("role", "")), turn.get("role"))
    message: dict[str, Any] = {"role": role, "content": _text(where, fields.pop("content", ""))}
    calls = fields.pop("tool_calls", [])
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function", {}) if isinstance(call, dict) else {}
        called[str(call.get("id", ""))] = str(function.get("name", ""))
    number = fields.pop("tool_call_id", None)
    name = fields.pop("name", None) or called.get(str(number), "")
    reasoning = fields.pop("reasoning_content", "") or fields.pop("reasoning", "")
    if unused := sorted(key for key, value in fields.items() if value):
        raise _bad(f"{where} has {', '.join(unused)}, which the model would not see")
    try:
        return Message.model_validate(message | {"tool_calls": calls, "reasoning_content": reasoning, "name": name})
    except ValidationError as error:
        raise _bad("; ".join(f"{where}.{_problem(detail)}" for detail in error.errors(include_url=False))) from None


def _text(where: str, content: object) -> str:
    """The text of a turn, whose content may be a list of parts."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise _bad(f"{where}.content[{place}] is of type {kind}; this server reads only text")
    return "".join(part["text"] for part in content)


def _problem(detail: Mapping[str, Any]) -> str:
    place = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{place} is not supported by this server"
    return f"{place}: {str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}"


def _bad(message: str) -> WorkbenchError:
    return WorkbenchError(f"The request cannot be used: {message}.", "", kind="bad_request")
