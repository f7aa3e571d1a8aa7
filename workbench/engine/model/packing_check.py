"""Whether records that lie end to end in one row leave each other alone: tried on the model itself before a run.

An architecture may mix tokens in ways that :mod:`workbench.engine.kernels.padding_free` does not reach. Such a model's
loss on a record would depend on its neighbours, and nobody would notice.
"""

from typing import Any

from workbench.engine.model.base import LoadedBase
from workbench.engine.model.tokenizer import pad_token_id

# Of what an earlier token of its own does to a record, the share that a neighbour may do: rounding, where experts or
# int8's outlier columns meet other tokens. An attention that sees neighbours comes to tenths and more.
_SEEN = 0.05
# The same for a record in a row beside one alone in the model's usual way; 16 bits round products of another shape so.
_MOVED = 0.2


def why_padded(base: LoadedBase) -> str:
    """Why a base cannot be trained without padding on this device, as part of a sentence; empty where it can."""
    import torch

    if base.device.type == "cuda" and (
        base.precision.compute == "float32" or torch.cuda.get_device_capability(base.device) < (8, 0)
    ):
        return "this GPU has no variable-length attention kernel for this dtype"
    if base.device.type not in ("cpu", "cuda"):
        return f"it is untested on {base.device.type}"
    model = base.model
    takes_ours = getattr(model, "_supports_attention_backend", False) or getattr(model, "_supports_flash_attn", False)
    if not takes_ours or model.base_model is model:
        return "this architecture has a custom attention"
    try:
        return _tried(base)
    except Exception as error:
        return f"this architecture fails ({type(error).__name__}: {str(error)[:120]})"


def _tried(base: LoadedBase) -> str:
    """Say a record behind one neighbour and behind another, and alone in the usual way, once with another start."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from workbench.engine.kernels.padding_free import TrainedRowsCollator

    count = base.model.get_input_embeddings().weight.shape[0]
    record, neighbour, another = (_record(start, count) for start in (5, 11, 17))
    padding = pad_token_id(base.tokenizer)
    flat, usual = TrainedRowsCollator(padding, padding_free=True), DataCollatorForLanguageModeling(padding)
    altered = {**record, "input_ids": [*another["input_ids"][:1], *record["input_ids"][1:]]}
    with base.padding_free_head(), torch.inference_mode():
        first = _said_last(base, flat([neighbour, record]), record)
        second = _said_last(base, flat([another, record]), record)
        alone, beside = (_said_last(base, usual([one]), one) for one in (record, altered))
    scale = (alone - beside).abs().mean()
    if bool((first - second).abs().mean() > _SEEN * scale):
        return "this architecture mixes neighbouring records"
    if bool((first - alone).abs().mean() > _MOVED * scale):
        return "this architecture has a non-standard attention"
    return ""


def _record(start: int, vocabulary: int) -> dict[str, list[int]]:
    ids = [(start * (place + 3) * 7919) % vocabulary for place in range(5)]
    return {"input_ids": ids, "labels": ids}


def _said_last(base: LoadedBase, inputs: dict[str, Any], record: dict[str, list[int]]) -> Any:
    """Log-probabilities of the tokens of ``record``, the last of a batch."""
    inputs = {name: value.to(base.device) if hasattr(value, "to") else value for name, value in inputs.items()}
    output = base.model(**inputs, use_cache=False, fused_lm_head=True)
    return output.log_probs[0, 1 - len(record["input_ids"]) :].float()
