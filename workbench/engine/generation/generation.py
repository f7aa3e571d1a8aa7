"""Generates a reply with the model in memory, and emits it piece by piece."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from workbench.data.templates.reply_form import ReplySplitter
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import Message, ReplyPiece, Sampling
from workbench.engine.generation.context import context_length, fit_prompt
from workbench.engine.generation.decoding import ReplyDecoder, TextStream
from workbench.engine.model.base import LoadedBase
from workbench.models.tokenizers import pad_token_id

if TYPE_CHECKING:
    import torch
    from transformers.generation import BaseStreamer

GREEDY = Sampling(temperature=0)
_SECONDS_BETWEEN_PIECES = 0.03


class StopSignal(Protocol):
    """A :class:`threading.Event`, or another object that says whether generation should stop."""

    def is_set(self) -> bool: ...


def generate_reply(
    base: LoadedBase,
    template: Template,
    messages: Sequence[Message],
    sampling: Sampling,
    emit: Callable[[ReplyPiece], None],
    cancelled: StopSignal,
    *,
    tools: Sequence[dict[str, Any]] = (),
    in_training: bool = False,
) -> str:
    """Continue a conversation with the active adapters of ``base``; returns the whole reply.

    Tokens are drawn by transformers' ``generate``; a seed makes the draw repeatable. If the conversation is longer than
    the model's context, its oldest turns are left out.

    Args:
        emit: called with the size of the prompt, the text as it is decoded and, last, a piece with ``done``, the
            message and the timings.
        tools: JSON schemas of the functions that the model may call.
        in_training: the weights belong to a run that continues afterwards; they are left bit for bit as they are.

    Raises:
        WorkbenchError: system prompt and last question alone are longer than the model's context.
    """
    import torch

    if not in_training:
        base.packing.allow()
    prompt = fit_prompt(template, messages, context_length(base.model.config), sampling.max_new_tokens, tools)
    size = ReplyPiece(prompt_tokens=len(prompt.ids), context_tokens=prompt.limit or 0, left_out=prompt.left_out)
    emit(size)
    ends = end_tokens(base, template)
    decoder = ReplyDecoder(base.tokenizer, template, ends)
    streamer = _PieceStreamer(decoder, emit)
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    started = time.monotonic()
    generated = continue_prompt(
        base,
        prompt.ids,
        prompt.max_reply(sampling.max_new_tokens),
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
                "message": Message.model_validate(template.reply_form.read(decoder.decode(generated), tools)),
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
    max_new_tokens: int,
    ends: Sequence[int],
    sampling: Sampling,
    *,
    cancelled: StopSignal,
    streamer: "BaseStreamer | None" = None,
    in_training: bool = False,
) -> list[int]:
    """Generate the tokens that follow a prompt, with the active adapters of ``base``.

    Args:
        ends: tokens that end the reply.
        streamer: called with the tokens as they come.
        in_training: see :func:`generate_reply`.
    """
    import torch
    from transformers import StoppingCriteriaList

    # Tensors that a layer caches under `inference_mode` could not be used for training.
    with torch.no_grad() if in_training else torch.inference_mode():
        output = base.active.generate(
            input_ids=torch.tensor([prompt], device=base.device),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=base.device),
            max_new_tokens=max_new_tokens,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([StopWhen(cancelled)]),
            pad_token_id=pad_token_id(base.tokenizer),
            eos_token_id=list(ends),
            **sampling_arguments(sampling),
        )
    return [int(token) for token in output[0, len(prompt) :]]


def end_tokens(base: LoadedBase, template: Template) -> list[int]:
    """Tokens that end a reply: those of the model's generation config and tokenizer, and those of the template."""
    configured = base.model.generation_config.eos_token_id
    ends = {
        *(configured if isinstance(configured, list) else [configured]),
        base.tokenizer.eos_token_id,
        *template.end_token_ids,
    }
    return sorted(token for token in ends if token is not None)


def sampling_arguments(sampling: Sampling) -> dict[str, bool | float | None]:
    """Arguments for ``generate``; each overrides the model's own generation config."""
    penalty = {"repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature == 0:
        # The others are reset, since transformers warns about those that greedy decoding does not use.
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
    """A stopping criterion for transformers that ends generation after the current token when a signal is set."""

    def __init__(self, signal: StopSignal) -> None:
        self._signal = signal
        self._tensors: dict[bool, torch.Tensor] = {}

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor", **_: object) -> "torch.Tensor":
        import torch

        # Reused: on a GPU each new tensor costs a kernel launch per token.
        stops = self._signal.is_set()
        if stops not in self._tensors:
            rows, device = input_ids.shape[0], input_ids.device
            self._tensors[stops] = torch.full((rows,), stops, device=device, dtype=torch.bool)
        return self._tensors[stops]


class _PieceStreamer:
    """A transformers ``BaseStreamer`` that decodes tokens as they come, and emits text that can no longer change.

    ``put`` is called with the prompt first, then with each token, and ``end`` last. Tokens that arrive within
    :data:`_SECONDS_BETWEEN_PIECES` share a piece.
    """

    def __init__(self, decoder: ReplyDecoder, emit: Callable[[ReplyPiece], None]) -> None:
        self._stream = TextStream(decoder.decode)
        self._splitter = ReplySplitter(decoder.form)
        self._emit = emit
        self._new: list[int] = []
        self._emitted_at = 0.0
        self._prompt_seen = False
        self.first_token: float | None = None

    def put(self, value: "torch.Tensor") -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        now = time.monotonic()
        if self.first_token is None:
            self.first_token = now
        self._new.extend(value.flatten().tolist())
        if now - self._emitted_at >= _SECONDS_BETWEEN_PIECES and self._emit_new():
            self._emitted_at = now

    def end(self) -> None:
        self._emit_new(final=True)
        self._emit_text("", final=True)

    def _emit_new(self, *, final: bool = False) -> bool:
        text, self._new = self._stream.add(self._new, final=final), []
        if text:
            self._emit_text(text)
        return bool(text)

    def _emit_text(self, text: str, *, final: bool = False) -> None:
        for piece in self._splitter.feed(text, final=final):
            self._emit(ReplyPiece(reasoning=piece.text) if piece.is_reasoning else ReplyPiece(text=piece.text))
