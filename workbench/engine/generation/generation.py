"""A reply, piece by piece, from the model in memory."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message, ReplyPiece, Sampling
from workbench.engine.generation.context import context_of, fit_prompt
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id

GREEDY = Sampling(temperature=0)
_SECONDS_BETWEEN_PIECES = 0.03


class Cancelled(Protocol):
    """A :class:`threading.Event`, or whatever else says that a reply is to end."""

    def is_set(self) -> bool: ...


def generate_reply(
    base: LoadedBase,
    template: Template,
    messages: Sequence[Message],
    sampling: Sampling,
    emit: Callable[[ReplyPiece], None],
    cancelled: Cancelled,
    *,
    in_training: bool = False,
) -> str:
    """Continue a conversation with what is active on ``base``; returns the whole reply.

    ``emit`` gets the size of the prompt, the text as it is decoded and, last, a piece with ``done`` and the figures.
    Tokens are drawn by transformers' ``generate``; a seed makes the draw repeatable. Where the conversation is longer
    than the model's context, its oldest turns are left out.

    Args:
        in_training: the weights are a run's, which goes on afterwards: they are left bit for bit as they are.

    Raises:
        WorkbenchError: system prompt and last question alone are longer than the model's context.
    """
    import torch

    if not in_training:
        base.packing.allow()
    prompt = fit_prompt(template, messages, context_of(base.model.config), sampling.max_new_tokens)
    size = ReplyPiece(prompt_tokens=len(prompt.ids), context_tokens=prompt.limit or 0, left_out=prompt.left_out)
    emit(size)
    streamer = _PieceStreamer(base.tokenizer, emit)
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    ends = end_tokens(base, template)
    started = time.monotonic()
    generated = continue_prompt(
        base,
        prompt.ids,
        prompt.room(sampling.max_new_tokens),
        ends,
        sampling,
        cancelled=cancelled,
        streamer=streamer,
        in_training=in_training,
    )
    finished = time.monotonic()
    first = streamer.first_token or finished
    ended = bool(generated) and generated[-1] in ends
    emit(
        size.model_copy(
            update={
                "done": True,
                "reason": "end" if ended else "cancelled" if cancelled.is_set() else "length",
                "tokens": len(generated),
                "first_token_seconds": first - started,
                "tokens_per_second": (len(generated) - 1) / max(finished - first, 1e-9) if len(generated) > 1 else 0.0,
            }
        )
    )
    return str(base.tokenizer.decode(generated, skip_special_tokens=True))


def continue_prompt(
    base: LoadedBase,
    prompt: Sequence[int],
    room: int,
    ends: Sequence[int],
    sampling: Sampling,
    *,
    cancelled: Cancelled,
    streamer: Any = None,
    in_training: bool = False,
) -> list[int]:
    """Generate the tokens that follow a prompt, with what is active on ``base``.

    Args:
        room: tokens to generate at most.
        ends: tokens that end the reply.
        streamer: gets the tokens as they come, as a transformers ``BaseStreamer``.
        in_training: see :func:`generate_reply`.
    """
    import torch
    from transformers import StoppingCriteriaList

    # What a layer keeps for later under `inference_mode` could not be trained with.
    with torch.no_grad() if in_training else torch.inference_mode():
        output = base.active.generate(
            input_ids=torch.tensor([prompt], device=base.device),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=base.device),
            max_new_tokens=room,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([StopWhen(cancelled)]),
            pad_token_id=pad_token_id(base.tokenizer),
            eos_token_id=list(ends),
            **drawing(sampling),
        )
    return [int(token) for token in output[0, len(prompt) :]]


def end_tokens(base: LoadedBase, template: Template) -> list[int]:
    """Tokens that end a reply: what the model's own settings say, and what the template was trained to end with."""
    own = base.model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), base.tokenizer.eos_token_id, *template.end_token_ids}
    return sorted(token for token in ends if token is not None)


def drawing(sampling: Sampling) -> dict[str, Any]:
    """How ``generate`` draws the next token; nothing of it is left to the model's own generation settings."""
    penalty = {"repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature == 0:
        # The rest is reset, or a model's own generation settings would warn about unused ones.
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "min_p": None, **penalty}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        **penalty,
    }


class StopWhen:
    """Stopping criterion: ends generation after the present token once that is wanted."""

    def __init__(self, cancelled: Cancelled) -> None:
        self._cancelled = cancelled
        self._answers: dict[bool, Any] = {}

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        # Made once: on a GPU each tensor costs a launch a token.
        stops = self._cancelled.is_set()
        if stops not in self._answers:
            rows, device = input_ids.shape[0], input_ids.device
            self._answers[stops] = torch.full((rows,), stops, device=device, dtype=torch.bool)
        return self._answers[stops]


class _PieceStreamer:
    """Decodes tokens as they come; text is emitted once no later token can change it.

    The interface is transformers' ``BaseStreamer``: ``put`` gets the prompt first, then each token, ``end`` comes last.
    Only the newest tokens are decoded, after those before them, on which a tokenizer's spaces depend: a long reply
    costs no more a token than a short one. Nobody reads more than some pieces a second, so neighbours share one.
    """

    def __init__(self, tokenizer: Any, emit: Callable[[ReplyPiece], None]) -> None:
        self._tokenizer = tokenizer
        self._emit = emit
        self._tokens: list[int] = []
        # Text of the tokens up to `_read` is told; decoding starts at `_start`.
        self._start = 0
        self._read = 0
        self._told = 0.0
        self._prompt_seen = False
        self.first_token: float | None = None

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        now = time.monotonic()
        if self.first_token is None:
            self.first_token = now
        self._tokens.extend(value.flatten().tolist())
        if now - self._told >= _SECONDS_BETWEEN_PIECES and self._show(final=False):
            self._told = now

    def end(self) -> None:
        self._show(final=True)

    def _show(self, *, final: bool) -> bool:
        before = self._decode(self._tokens[self._start : self._read])
        text = self._decode(self._tokens[self._start :])
        # A character of several tokens decodes to U+FFFD until its last one is there.
        if len(text) <= len(before) or (text.endswith("\ufffd") and not final):
            return False
        self._emit(ReplyPiece(text=text[len(before) :]))
        self._start, self._read = self._read, len(self._tokens)
        return True

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""
