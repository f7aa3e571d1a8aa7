"""The routes of OpenAI's API: models, chat completions and completions, streamed or whole."""

import hmac
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from workbench.engine.generation.context import context_length
from workbench.engine.generation.decoding import ReplyDecoder
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.failures.unforeseen import KIND
from workbench.serving.answers import (
    Answer,
    ChatAnswer,
    CompletionAnswer,
    Json,
    chat_logprobs,
    completion_logprobs,
)
from workbench.serving.batching import Batches
from workbench.serving.draw import Draw, TokenChoice
from workbench.serving.finished import Finished
from workbench.serving.models import Served, ServedModel
from workbench.serving.reply import Reply, decode_reply
from workbench.serving.requests import ChatRequest, CompletionRequest, to_messages

_STATUS = {"no_such_model": 404, "token": 401, "generation": 503, KIND: 500}
_CODES = {"context_full": "context_length_exceeded", "no_such_model": "model_not_found", "token": "invalid_api_key"}


@dataclass(frozen=True)
class _Work:
    """A request that was checked: how its reply is generated, and in which form it is answered."""

    model: ServedModel
    draw: Draw
    max_tokens: int
    stops: Sequence[str]
    decode: Callable[[Sequence[int]], str]
    answer: Answer
    logprobs: Callable[[Sequence[TokenChoice], "_Texts"], Json]


class Api:
    """Answers requests for the served models.

    Args:
        token: what clients must send as their API key; empty asks for none.
        log: where tracebacks of unforeseen errors are written.
        report: called at the end of each request.
    """

    def __init__(
        self, served: Served, batches: Batches, token: str, log: Path, report: Callable[[Finished], None]
    ) -> None:
        self._served = served
        self._batches = batches
        self._token = token
        self._log = log
        self._report = report
        self._running = 0
        self._started = int(time.time())
        self._texts = _Texts(served)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", _health),
                Route("/v1/models", self._answering(self._list)),
                Route("/v1/models/{name:path}", self._answering(self._one)),
                Route("/v1/chat/completions", self._answering(self._chat), methods=["POST"]),
                Route("/v1/completions", self._answering(self._complete), methods=["POST"]),
            ]
        )

    # -- endpoints ------------------------------------------------------------------------------------------------

    async def _list(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described(name) for name in self._served.models]})

    async def _one(self, request: Request) -> Response:
        return JSONResponse(self._described(self._model(request.path_params["name"]).name))

    async def _chat(self, request: Request) -> Response:
        body = ChatRequest.read(await _json(request))
        model, tools = self._model(body.model), body.offered_tools
        model.template.check_tools(tools)
        prompt = model.template.encode_prompt([turn.model_dump() for turn in to_messages(body.messages)], tools)
        work = _Work(
            model,
            _draw(body, prompt),
            self._room(prompt, body.max_completion_tokens or body.max_tokens),
            body.stop or [],
            ReplyDecoder(self._served.base.tokenizer, model.template, model.ends).decode,
            ChatAnswer(model.name, model.template, tools),
            chat_logprobs,
        )
        return await self._answer(request, body, work)

    async def _complete(self, request: Request) -> Response:
        body = CompletionRequest.read(await _json(request))
        tokenizer = self._served.base.tokenizer
        model = self._model(body.model)
        prompt = tokenizer(body.prompt)["input_ids"] if isinstance(body.prompt, str) else body.prompt
        if not prompt or not all(0 <= token < len(tokenizer) for token in prompt):
            raise WorkbenchError("The prompt is empty, or has tokens that the model lacks.", "", kind="bad_request")
        work = _Work(
            model,
            _draw(body, prompt),
            self._room(prompt, body.max_tokens),
            body.stop or [],
            lambda tokens: str(tokenizer.decode(list(tokens), skip_special_tokens=True)),
            CompletionAnswer(model.name),
            completion_logprobs,
        )
        return await self._answer(request, body, work)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _answering(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that asks for the token, and answers any error as OpenAI's API does."""

        async def answer(request: Request) -> Response:
            try:
                self._check_token(request)
                return await endpoint(request)
            except Exception as error:
                return self._refused(error)

        return answer

    def _check_token(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode())
        if self._token and not is_right:
            raise WorkbenchError(
                "The API key is missing or wrong.",
                "Send the token that `loraworkbench serve` uses as the API key.",
                kind="token",
            )

    def _model(self, name: str) -> ServedModel:
        if name not in self._served.models:
            raise WorkbenchError(
                f"There is no model {name} here.", f"Served: {', '.join(self._served.models)}.", kind="no_such_model"
            )
        return self._served.models[name]

    def _room(self, prompt: Sequence[int], asked: int | None) -> int:
        """How many tokens the reply may have.

        Raises:
            WorkbenchError: the prompt leaves no room for one.
        """
        context = context_length(self._served.base.model.config) or self._batches.cache_tokens
        limit, what = min(
            (context, "the model's context"), (self._batches.cache_tokens, "the server's cache (--cache-tokens)")
        )
        if len(prompt) >= limit:
            raise WorkbenchError(
                f"The prompt has {len(prompt)} tokens; {what} has {limit}.", "Shorten it.", kind="context_full"
            )
        return min(asked or limit, limit - len(prompt))

    def _refused(self, error: Exception) -> Response:
        known = diagnose(error, "answering a request", self._log)
        return JSONResponse({"error": _error(known)}, status_code=_STATUS.get(known.kind, 400))

    def _described(self, name: str) -> Json:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "loraworkbench"}

    # -- replies --------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request, body: ChatRequest | CompletionRequest, work: _Work) -> Response:
        if body.stream:
            wants_usage = body.stream_options is not None and body.stream_options.include_usage
            return EventSourceResponse(self._stream(work, wants_usage), sep="\n")
        reply = Reply()
        async with aclosing(self._decoded(work, reply)) as texts:
            async for _ in texts:
                if await request.is_disconnected():
                    return Response(status_code=499)
        choices = work.draw.choices[: len(reply.tokens)]
        logprobs = work.logprobs(choices, self._texts) if work.draw.alternatives is not None else None
        return JSONResponse(work.answer.whole(reply, logprobs, _usage(work, reply)))

    async def _stream(self, work: _Work, wants_usage: bool) -> AsyncGenerator[Json, None]:
        reply, sent_tokens = Reply(), 0
        try:
            for chunk in work.answer.begin():
                yield _event(chunk)
            async with aclosing(self._decoded(work, reply)) as texts:
                async for text in texts:
                    logprobs = None
                    if work.draw.alternatives is not None:
                        logprobs = work.logprobs(work.draw.choices[sent_tokens : len(reply.tokens)], self._texts)
                        sent_tokens = len(reply.tokens)
                    for chunk in work.answer.add(text, logprobs):
                        yield _event(chunk)
            for chunk in work.answer.end(reply):
                yield _event(chunk)
            if wants_usage:
                yield _event(work.answer.usage_chunk(_usage(work, reply)))
            yield {"data": "[DONE]"}
        except Exception as error:  # the status was sent before the reply
            yield _event({"error": _error(diagnose(error, "answering a request", self._log))})

    async def _decoded(self, work: _Work, reply: Reply) -> AsyncGenerator[str, None]:
        """The text of a reply as it comes; reports the end of the request however it ends."""
        started, reason = time.monotonic(), "canceled"
        self._running += 1
        try:
            tokens = self._batches.generate(work.model.adapters, work.draw, work.max_tokens, work.model.ends)
            async with (
                aclosing(tokens),
                aclosing(decode_reply(tokens, work.decode, work.model.ends, work.stops, reply)) as texts,
            ):
                async for text in texts:
                    yield text
            reason = reply.reason or "stop"
        except WorkbenchError as error:
            reason = error.kind
            raise
        finally:
            self._running -= 1
            seconds = time.monotonic() - started
            count = len(work.draw.prompt)
            self._report(Finished(work.model.name, count, len(reply.tokens), seconds, reason, self._running))


class _Texts(dict[int, str]):
    """The text of each token, decoded when it is first needed."""

    def __init__(self, served: Served) -> None:
        self._tokenizer = served.base.tokenizer

    def __missing__(self, token: int) -> str:
        self[token] = str(self._tokenizer.decode([token]))
        return self[token]


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _json(request: Request) -> object:
    try:
        return await request.json()
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WorkbenchError(f"The request is not JSON: {error}.", "", kind="bad_request") from None


def _draw(body: ChatRequest | CompletionRequest, prompt: list[int]) -> Draw:
    return Draw(
        body.sampling,
        prompt,
        body.frequency_penalty or 0.0,
        body.presence_penalty or 0.0,
        body.logit_bias or {},
        body.alternatives,
    )


def _usage(work: _Work, reply: Reply) -> Json:
    prompt, completion = len(work.draw.prompt), len(reply.tokens)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(chunk: Json) -> Json:
    return {"data": json.dumps(chunk, ensure_ascii=False)}


def _error(error: WorkbenchError) -> Json:
    kind = "server_error" if _STATUS.get(error.kind, 400) >= 500 else "invalid_request_error"
    message = f"{error.message} {error.cure}".strip()
    return {"message": message, "type": kind, "param": None, "code": _CODES.get(error.kind, error.kind)}
