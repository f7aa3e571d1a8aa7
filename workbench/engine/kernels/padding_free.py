"""Trains on batches without padding: records are concatenated in one row, and attention treats each separately.

Three parts work together: the collator concatenates the records and notes where tokens are trained; the attention
function of this module handles each record by itself; and only the hidden states that predict a trained token reach the
head. An exported script contains this text: nothing of the project is imported.
"""

from collections.abc import Callable
from functools import wraps
from itertools import pairwise

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import FusedCausalLMOutput

# The attention implementation's name in transformers, which builds no mask for a name that it does not know.
PER_RECORD = "per_record"
# Vocabulary entries that the head computes at once, without and with a GPU: a CPU holds about six copies of them.
_TILE = (4096, 32768)
_KERNEL_DTYPES = {torch.bfloat16, torch.float16}


class TrainedTokensCollator(DataCollatorForLanguageModeling):
    """TRL's collator, whose batches also say where tokens are trained (:func:`add_trained_positions`)."""

    def torch_call(self, examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return add_trained_positions(super().torch_call(examples))


def add_trained_positions(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add the positions that predict a trained token. Done on the CPU, so that the GPU never waits for them.

    ``trained_positions``: indices into the batch's states with its rows concatenated; (trained,). ``shift_labels``: the
    tokens to predict there; (1, trained).
    """
    next_labels = batch["labels"][:, 1:]
    rows, columns = (next_labels != -100).nonzero(as_tuple=True)
    batch["trained_positions"] = rows * batch["labels"].shape[1] + columns
    batch["shift_labels"] = next_labels[rows, columns][None]
    return batch


def per_record_attention(
    module: torch.nn.Module,
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
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each record of a row, as a transformers attention function.

    On a GPU this is PyTorch's variable-length kernel; elsewhere ``scaled_dot_product_attention`` is called once per
    record, so that nothing is computed and then masked.

    Args:
        query: (1, heads, tokens, width); key and value may have fewer heads.
        cu_seq_lens_q: start of each record, and the end of the last one; (records + 1,).
        max_length_q: tokens of the longest record.

    Returns:
        (1, tokens, heads, width), and no attention weights.

    Raises:
        NotImplementedError: this model's attention needs something that this function does not support.
    """
    if any(extra is not None for extra in (attention_mask, softcap, position_bias)):
        raise NotImplementedError("a mask, capped scores or position-dependent scores")
    if query.is_cuda and not dropout:
        return _varlen_attention(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window), None
    bounds = cu_seq_lens_q.tolist()
    outputs = []
    for start, end in pairwise(bounds):
        record = (states[:, :, start:end] for states in (query, key, value))
        mask = _window_mask(end - start, sliding_window, query.device)
        # The window's mask is already causal.
        output, _ = sdpa_attention_forward(
            module, *record, mask, dropout=dropout, scaling=scaling, is_causal=mask is None
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def _varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if query.dtype not in _KERNEL_DTYPES:
        raise NotImplementedError(f"{query.dtype} on a GPU")
    query, key, value = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    output = varlen_attn(
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
    return output[None]


def _window_mask(tokens: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """The mask of a sliding window; (1, 1, tokens, tokens). None where the whole record fits into the window."""
    if window is None or window >= tokens:
        return None
    position = torch.arange(tokens, device=device)
    distance = position[:, None] - position[None, :]
    return ((distance >= 0) & (distance < window))[None, None]


ALL_ATTENTION_FUNCTIONS.register(PER_RECORD, per_record_attention)


def enable_padding_free(model: PreTrainedModel) -> Callable[[], None]:
    """Make a causal language model accept batches of :class:`TrainedTokensCollator`; returns how to undo it.

    Call this after TRL's fused head is on. That head still handles all other batches, and those of mixture-of-experts
    models whose loss balances the load of the experts.
    """
    usual, had_forward, head_forward = (
        model.config._attn_implementation,
        "forward" in model.__dict__,
        model.forward,
    )
    softcap, scale = _logit_settings(model.config.get_text_config())

    def choose_attention(_: PreTrainedModel, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        # Not reset after the forward pass: checkpointed layers are computed again in the backward pass.
        model.config._attn_implementation = PER_RECORD if "cu_seq_lens_q" in kwargs else usual

    @wraps(type(model).forward)
    def forward(
        *args: torch.Tensor, trained_positions: torch.Tensor | None = None, **kwargs: torch.Tensor
    ) -> ModelOutput:
        if trained_positions is None:
            return head_forward(*args, **kwargs)
        targets = kwargs.pop("shift_labels")
        if kwargs.get("output_router_logits"):
            return head_forward(*args, **kwargs)
        del kwargs["labels"], kwargs["fused_lm_head"]
        states = model.base_model(*args, **kwargs).last_hidden_state
        trained_states = states.reshape(-1, states.shape[-1]).index_select(0, trained_positions)
        head = model.get_output_embeddings()
        log_probs, _, _, _, is_top1 = ChunkedLogProbFunction.apply(
            trained_states, head.weight, head.bias, targets[0], 1.0, _TILE[states.is_cuda], softcap, scale, ("is_top1",)
        )
        return FusedCausalLMOutput(
            log_probs=log_probs[None],
            # Not computed here; TRL's own trainer sums it up for its log.
            entropy=torch.zeros_like(log_probs[None]),
            is_top1=is_top1[None],
            label_mask=torch.ones_like(targets, dtype=torch.bool),
        )

    hook = model.register_forward_pre_hook(choose_attention, with_kwargs=True)
    model.forward = forward

    def undo() -> None:
        hook.remove()
        model.config._attn_implementation = usual
        del model.forward
        if had_forward:
            model.forward = head_forward

    return undo


def _logit_settings(config: PretrainedConfig) -> tuple[float | None, float]:
    """The cap (None for none) and the factor that a model applies to its logits, by the names that TRL's head knows."""
    factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
    divisor = getattr(config, "logits_scaling", None)
    factor = next((factor for factor in factors if factor is not None), 1 / divisor if divisor else 1.0)
    return getattr(config, "final_logit_softcapping", None), factor
