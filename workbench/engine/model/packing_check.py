"""Checks, before a run, whether a model keeps records apart that are concatenated in one row.

An architecture may mix tokens in ways that :mod:`workbench.engine.kernels.padding_free` does not control. The loss of
such a model on a record would depend on the neighboring records, and nobody would notice. So the model itself is tried.
"""

from typing import TYPE_CHECKING

from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id

if TYPE_CHECKING:
    import torch

# A neighbor may change a record's log-probabilities by at most this share of what the record's own first token changes:
# rounding, where experts or int8's outlier columns meet other tokens. Attention that sees neighbors reaches tenths.
_NEIGHBOR_LIMIT = 0.05
# The same for a record in a row compared with the record alone, with the model's own attention; in 16 bits, products of
# different shapes round differently by this much.
_ALONE_LIMIT = 0.2


def why_padded(base: LoadedBase) -> str:
    """Why a base needs padded batches on this device, as part of a sentence; empty where it does not."""
    import torch

    if base.device.type == "cuda" and (
        base.precision.compute == "float32" or torch.cuda.get_device_capability(base.device) < (8, 0)
    ):
        return "this GPU has no variable-length attention kernel for this dtype"
    if base.device.type not in ("cpu", "cuda"):
        return f"it is untested on {base.device.type}"
    model = base.model
    is_pluggable = getattr(model, "_supports_attention_backend", False) or getattr(model, "_supports_flash_attn", False)
    if not is_pluggable or model.base_model is model:
        return "this architecture has a custom attention"
    try:
        return _compare(base)
    except Exception as error:
        return f"this architecture fails ({type(error).__name__}: {str(error)[:120]})"


def _compare(base: LoadedBase) -> str:
    """Compute one record after two different neighbors and alone; returns why the results differ too much, or ''."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from workbench.engine.kernels.padding_free import TrainedTokensCollator

    count = base.model.get_input_embeddings().weight.shape[0]
    record, neighbor, other_neighbor = (_record(start, count) for start in (5, 11, 17))
    padding = pad_token_id(base.tokenizer)
    concatenate = TrainedTokensCollator(padding, padding_free=True)
    pad = DataCollatorForLanguageModeling(padding)
    # The record with another first token: how much a visible token changes, as the scale for the comparison.
    changed = {**record, "input_ids": [*other_neighbor["input_ids"][:1], *record["input_ids"][1:]]}
    with base.padding_free_head(), torch.inference_mode():
        first = _last_log_probs(base, concatenate([neighbor, record]), record)
        second = _last_log_probs(base, concatenate([other_neighbor, record]), record)
        alone, alone_changed = (_last_log_probs(base, pad([one]), one) for one in (record, changed))
    scale = (alone - alone_changed).abs().mean()
    if bool((first - second).abs().mean() > _NEIGHBOR_LIMIT * scale):
        return "this architecture mixes neighbouring records"
    if bool((first - alone).abs().mean() > _ALONE_LIMIT * scale):
        return "this architecture has a non-standard attention"
    return ""


def _record(start: int, vocabulary: int) -> dict[str, list[int]]:
    ids = [(start * (position + 3) * 7919) % vocabulary for position in range(5)]
    return {"input_ids": ids, "labels": ids}


def _last_log_probs(
    base: LoadedBase, batch: "dict[str, torch.Tensor | int]", record: dict[str, list[int]]
) -> "torch.Tensor":
    """Log-probabilities of the tokens of ``record``, the last one of a batch."""
    inputs = {name: value if isinstance(value, int) else value.to(base.device) for name, value in batch.items()}
    output = base.model(**inputs, use_cache=False, fused_lm_head=True)
    return output.log_probs[0, 1 - len(record["input_ids"]) :].float()
