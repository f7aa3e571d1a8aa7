"""Adds rows to a model's embeddings for tokens that its tokenizer has beyond them, and names the rows to train.

The rows are trained by PEFT's ``trainable_token_indices``: the adapter holds their values, and the base stays frozen.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from workbench.engine.model.sharded import is_spread
from workbench.errors import WorkbenchError
from workbench.recipe.sections.adapter import AdapterSection

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def add_missing_rows(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> range:
    """Resize the embeddings to the tokenizer if it has more tokens; returns the ids of the new rows.

    Each new row starts as the mean of the old ones, so that every load of the base gives the same values.

    Raises:
        WorkbenchError: the model cannot be resized, or is spread over several processes.
    """
    import torch

    before = embedding_rows(model)
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if needed <= before:
        return range(0)
    if is_spread():
        raise WorkbenchError(
            "model.resize_embeddings does not work with a base that is spread over several GPUs.",
            "Train on one GPU, or on several that each hold the whole base.",
            kind="adapter",
        )
    try:
        resize_embeddings(model, needed, lambda old: old.mean(0, dtype=torch.float32).to(old.dtype))
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise WorkbenchError(
            f"The embeddings of this model cannot be resized: {str(error).splitlines()[0]}",
            "Set model.resize_embeddings to false, and remove the new tokens from the records.",
            kind="adapter",
        ) from error
    return range(before, needed)


def resize_embeddings(
    model: "PreTrainedModel", rows: int, first_values: "Callable[[torch.Tensor], torch.Tensor]"
) -> None:
    """Give the input and output embeddings of a frozen model this many rows; all of its weights stay frozen.

    Args:
        first_values: returns the values of each new row, from the old rows of its layer.
    """
    import torch

    before = embedding_rows(model)
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None and layer.weight.shape[0] == rows:
                layer.weight[before:] = first_values(layer.weight[:before])
    model.requires_grad_(False)


def trained_rows(model: "PreTrainedModel", adapter: AdapterSection, rows: Sequence[int]) -> dict[str, list[int]] | None:
    """``trainable_token_indices`` for these rows: by name of the layer; None if there are none to train by themselves.

    Output embeddings tied to the input have no entry of their own, nor has a layer that is in ``modules_to_save``.

    Raises:
        WorkbenchError: the adapter targets such a layer with LoRA.
    """
    if not rows:
        return None
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [name for name, module in model.named_modules() if any(module is layer for layer in layers)]
    whole = tuple(adapter.modules_to_save or ())
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        if whole and any(name.endswith(whole) for name in names[1:]) and not names[0].endswith(whole):
            raise WorkbenchError(
                f"{names[1]} is tied to {names[0]}, whose new rows (model.resize_embeddings) are trained.",
                f"List {names[0].rpartition('.')[2]} in adapter.modules_to_save in its place.",
                kind="adapter",
            )
        del names[1:]
    for name in names:
        if _is_target(name, adapter.target_modules):
            raise WorkbenchError(
                f"The new rows of {name} (model.resize_embeddings) cannot be trained beside LoRA on the same layer.",
                "Remove it from adapter.target_modules, or train it whole with adapter.modules_to_save.",
                kind="adapter",
            )
    return {name: list(rows) for name in names if not (whole and name.endswith(whole))} or None


def embedding_rows(model: "PreTrainedModel") -> int:
    """The rows of a model's input embedding, also while an adapter that trains some of them is attached."""
    layer = model.get_input_embeddings()
    adapter = getattr(layer, "token_adapter", None)
    return int((layer if adapter is None else adapter.get_base_layer()).num_embeddings)


def expose_bias(model: "PreTrainedModel") -> None:
    """Give PEFT's wrapper of the output layer its ``bias``, which the fused head reads and the wrapper lacks."""
    head = model.get_output_embeddings()
    layer = getattr(head, "token_adapter", None)
    if layer is not None:
        # Not by assignment, which would register the parameter a second time.
        head.__dict__["bias"] = getattr(layer.get_base_layer(), "bias", None)


def _is_target(name: str, targets: str | list[str]) -> bool:
    if isinstance(targets, str):
        return targets.lower() != "all-linear" and re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)
