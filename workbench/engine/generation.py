"""A reply, piece by piece, from the model in memory."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from workbench.data.templates import Template
from workbench.engine.base import LoadedBase
from workbench.engine.evaluation import pad_token_id
from workbench.engine.protocol import Message, ReplyPiece, Sampling
from workbench.errors import WorkbenchError


def generate_reply(
    base: LoadedBase,
    template: Template,
    messages: Sequence[Message],
    sampling: Sampling,
    emit: Callable[[ReplyPiece], None],
    cancelled: threading.Event,
) -> str:
    """Continue a conversation with what is active on ``base``; returns the whole reply.

    ``emit`` gets each piece of text as it is decoded and, last, a piece with ``done`` and the figures. Tokens are drawn
    by transformers' ``generate``; a seed makes the draw repeatable.

    Raises:
        WorkbenchError: the conversation is longer than the model's context.
    """
    import torch
    from transformers import StoppingCriteriaList

    base.packing.allow()
    prompt = template.encode_prompt([message.model_dump() for message in messages])
    room = _room(base.model.config, len(prompt))
    streamer = _PieceStreamer(base.tokenizer, emit)
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    started = time.monotonic()
    with torch.inference_mode():
        output = base.active.generate(
            input_ids=torch.tensor([prompt], device=base.device),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=base.device),
            max_new_tokens=min(sampling.max_new_tokens, room),
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([_Cancelled(cancelled)]),
            pad_token_id=pad_token_id(base.tokenizer),
            eos_token_id=_end_tokens(base, template),
            **_drawing(sampling),
        )
    generated = output[0, len(prompt) :].tolist()
    finished = time.monotonic()
    first = streamer.first_token or finished
    ended = bool(generated) and generated[-1] in _end_tokens(base, template)
    emit(
        ReplyPiece(
            done=True,
            reason="end" if ended else "cancelled" if cancelled.is_set() else "length",
            prompt_tokens=len(prompt),
            tokens=len(generated),
            first_token_seconds=first - started,
            tokens_per_second=(len(generated) - 1) / max(finished - first, 1e-9) if len(generated) > 1 else 0.0,
        )
    )
    return str(base.tokenizer.decode(generated, skip_special_tokens=True))


def _room(config: Any, prompt: int) -> int:
    limit = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    if prompt >= limit:
        raise WorkbenchError(
            f"The conversation is {prompt} tokens long; the model's context holds {limit}.",
            "Clear the conversation, or shorten it.",
            kind="context_full",
        )
    return int(limit - prompt)


def _end_tokens(base: LoadedBase, template: Template) -> list[int]:
    """Tokens that end a reply: what the model's own settings say, and what the template was trained to end with."""
    own = base.model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), base.tokenizer.eos_token_id, *template.end_token_ids}
    return sorted(token for token in ends if token is not None)


def _drawing(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        # The rest is reset, or a model's own generation settings would warn about unused ones.
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
    }


class _Cancelled:
    """Stopping criterion: ends generation after the present token once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device, dtype=torch.bool)


class _PieceStreamer:
    """Decodes tokens as they come; text is emitted once no later token can change it.

    The interface is transformers' ``BaseStreamer``: ``put`` gets the prompt first, then each token, ``end`` comes last.
    """

    def __init__(self, tokenizer: Any, emit: Callable[[ReplyPiece], None]) -> None:
        self._tokenizer = tokenizer
        self._emit = emit
        self._tokens: list[int] = []
        self._shown = 0
        self._settled = 0
        self._prompt_seen = False
        self.first_token: float | None = None

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        if self.first_token is None:
            self.first_token = time.monotonic()
        self._tokens.extend(value.flatten().tolist())
        self._show(final=False)

    def end(self) -> None:
        self._show(final=True)

    def _show(self, *, final: bool) -> None:
        # Only the tokens since the last line end are decoded again, so that a long reply costs no more per token.
        text = self._tokenizer.decode(self._tokens[self._settled :], skip_special_tokens=True)
        # A character of several tokens decodes to U+FFFD until its last one is there.
        if text.endswith("\ufffd") and not final:
            return
        if len(text) > self._shown:
            self._emit(ReplyPiece(text=text[self._shown :]))
            self._shown = len(text)
        if text.endswith("\n"):
            self._settled, self._shown = len(self._tokens), 0
