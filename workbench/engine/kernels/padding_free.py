"""Batches without padding: records end to end in one row, none of which sees its neighbours.

Three parts, which work together and with nothing else: the collator lays records out and says where a token is trained;
the attention of this module takes each record by itself; and of the last hidden states only those that a trained token
is predicted from reach the head. An exported script carries this text along: nothing of the project is imported.
"""

from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import FusedCausalLMOutput

# Under this name no mask is made: transformers knows of none for it.
APART = "records_apart"
# Tokens of the vocabulary that the head computes at once, without and with a GPU: a processor holds some six copies.
_TILE = (4096, 32768)
_HAS_KERNEL = {torch.bfloat16, torch.float16}


class TrainedRowsCollator(DataCollatorForLanguageModeling):
    """TRL's collator, with what :func:`mark_trained` adds; lies flat or is padded as ``padding_free`` says."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return mark_trained(super().torch_call(examples))


def mark_trained(batch: dict[str, Any]) -> dict[str, Any]:
    """Add where the trained tokens of a batch are predicted from; on the processor, before the device is kept waiting.

    ``trained_at``: places in the batch's states, its rows laid end to end; (trained,). ``shift_labels``: the tokens to
    predict there; (1, trained).
    """
    following = batch["labels"][:, 1:]
    rows, columns = (following != -100).nonzero(as_tuple=True)
    batch["trained_at"] = rows * batch["labels"].shape[1] + columns
    batch["shift_labels"] = following[rows, columns][None]
    return batch


def attend_apart(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each record of a row, in transformers' form of an attention function.

    On a GPU it is PyTorch's own kernel for records of varying length; elsewhere each record is given to
    ``scaled_dot_product_attention`` alone, so that nothing is computed for a mask to throw away.

    Args:
        query: (1, heads, tokens, width); key and value may have fewer heads.
        cu_seq_lens_q: where records begin, and where the last one ends; (records + 1,).
        max_length_q: tokens of the longest record.

    Returns:
        (1, tokens, heads, width), and no weights.

    Raises:
        NotImplementedError: what this model's attention does beside the usual cannot be done so.
    """
    if any(extra is not None for extra in (attention_mask, softcap, position_bias)):
        raise NotImplementedError("a mask, capped scores or position-dependent scores")
    if query.is_cuda and not dropout:
        return _by_kernel(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window), None
    bounds = cu_seq_lens_q.tolist()
    parts = []
    for start, end in pairwise(bounds):
        record = (states[:, :, start:end] for states in (query, key, value))
        mask = _window_mask(end - start, sliding_window, query.device)
        # The window's mask is causal itself.
        part, _ = sdpa_attention_forward(
            module, *record, mask, dropout=dropout, scaling=scaling, is_causal=mask is None
        )
        parts.append(part)
    return torch.cat(parts, dim=1), None


def _by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if query.dtype not in _HAS_KERNEL:
        raise NotImplementedError(f"{query.dtype} on a GPU")
    query, key, value = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    attended = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended[None]


def _window_mask(tokens: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Which tokens see which, where the window is shorter than the record; (1, 1, tokens, tokens)."""
    if window is None or window >= tokens:
        return None
    place = torch.arange(tokens, device=device)
    back = place[:, None] - place[None, :]
    return ((back >= 0) & (back < window))[None, None]


ALL_ATTENTION_FUNCTIONS.register(APART, attend_apart)


def serve_padding_free(model: Any) -> Callable[[], None]:
    """Make a causal language model of transformers take the batches of :class:`TrainedRowsCollator`.

    To be called when TRL's head is on. Other batches, and those of experts whose load is balanced by the loss, are
    answered by that head as before. Returns what takes it back.
    """
    usual, has_own, answer = model.config._attn_implementation, "forward" in model.__dict__, model.forward
    capped, scaled = _logit_settings(model.config.get_text_config())

    def before(_: Any, arguments: Any, options: dict[str, Any]) -> None:
        # Not set back afterwards: checkpointed layers are computed again in the backward pass.
        model.config._attn_implementation = APART if "cu_seq_lens_q" in options else usual

    @wraps(type(model).forward)
    def forward(*arguments: Any, trained_at: torch.Tensor | None = None, **options: Any) -> Any:
        if trained_at is None:
            return answer(*arguments, **options)
        targets = options.pop("shift_labels")
        if options.get("output_router_logits"):
            return answer(*arguments, **options)
        del options["labels"], options["fused_lm_head"]
        states = model.base_model(*arguments, **options).last_hidden_state
        picked = states.reshape(-1, states.shape[-1]).index_select(0, trained_at)
        head = model.get_output_embeddings()
        log_probs, _, _, _, is_top1 = ChunkedLogProbFunction.apply(
            picked, head.weight, head.bias, targets[0], 1.0, _TILE[states.is_cuda], capped, scaled, ("is_top1",)
        )
        return FusedCausalLMOutput(
            log_probs=log_probs[None],
            # TRL's own trainer adds it up for its log; it is not computed here.
            entropy=torch.zeros_like(log_probs[None]),
            is_top1=is_top1[None],
            label_mask=torch.ones_like(targets, dtype=torch.bool),
        )

    hook = model.register_forward_pre_hook(before, with_kwargs=True)
    model.forward = forward

    def undo() -> None:
        hook.remove()
        model.config._attn_implementation = usual
        del model.forward
        if has_own:
            model.forward = answer

    return undo


def _logit_settings(config: Any) -> tuple[float | None, float]:
    """What a model does to its logits: the cap, if any, and the factor; under the names that TRL's head knows."""
    factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
    divisor = getattr(config, "logits_scaling", None)
    factor = next((factor for factor in factors if factor is not None), 1 / divisor if divisor else 1.0)
    return getattr(config, "final_logit_softcapping", None), factor
