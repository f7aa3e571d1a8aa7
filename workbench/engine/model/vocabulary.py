"""Enlarges a base's vocabulary to that of an adapter which was trained after ``resize_token_embeddings``.

Such an adapter has more rows than the base in the embedding or the output layer: as a LoRA of them, or as a whole copy.
PEFT cannot load it until the base has as many.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.engine.model.new_rows import embedding_rows, resize_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PREFIX = "base_model.model."


def rows_to_add(model: "PreTrainedModel", folder: Path) -> int:
    """Rows that an adapter's vocabulary has in all, if they are more than the base's; else 0."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            rows = rows_of_adapter(model, file) or 0
    except SafetensorError:
        return 0  # who loads the adapter says that it is damaged
    return rows if rows > embedding_rows(model) else 0


def rows_of_adapter(model: "PreTrainedModel", file: Any) -> int | None:
    """Rows that an adapter's file has for the embedding or the output layer; None if it has neither, or they differ.

    Args:
        file: the opened ``adapter_model.safetensors``.
    """
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)
    found = {shapes[name][axis] for name, axis in _places(model) if name in shapes}
    return found.pop() if len(found) == 1 else None


def enlarge_vocabulary(model: "PreTrainedModel", rows: int, saved: Path) -> str:
    """Give the model ``rows`` rows; returns what was done, as a sentence.

    The new rows' values are in the adapter's file if PEFT saved the layer itself; else they are zeros.

    Args:
        saved: the adapter's folder.
    """
    import torch
    from safetensors import safe_open

    before = embedding_rows(model)
    resize_embeddings(model, rows, lambda old: torch.zeros_like(old[0]))
    with safe_open(saved / "adapter_model.safetensors", framework="pt") as file:
        names = set(file.keys())
    are_saved = any(name in names for name, axis in _places(model) if axis == 0 and "lora" not in name)
    missing = "" if are_saved else " The adapter's file does not have the new rows of the base, so they are zeros."
    return (
        f"The adapter was trained with an enlarged vocabulary: the base's {before:,} rows were resized to "
        f"{rows:,}.{missing}"
    )


def adapters_tokenizer(folder: Path, ours: "PreTrainedTokenizerBase", rows: int) -> "PreTrainedTokenizerBase":
    """The tokenizer saved with an adapter if it has the added tokens; else the base's."""
    from transformers import AutoTokenizer

    from workbench.models.local import has_tokenizer

    if not has_tokenizer(folder):
        return ours
    theirs = AutoTokenizer.from_pretrained(folder)
    return theirs if len(ours) < len(theirs) <= rows else ours


def _places(model: "PreTrainedModel") -> Iterator[tuple[str, int]]:
    """Names in an adapter's file whose shape has the rows of the vocabulary, and the axis that has them."""
    names = {id(module): name for name, module in model.named_modules()}
    embedding, head = (names.get(id(layer)) for layer in (model.get_input_embeddings(), model.get_output_embeddings()))
    if embedding is not None:
        yield f"{_PREFIX}{embedding}.lora_embedding_A", 1
    if head is not None:
        yield f"{_PREFIX}{head}.lora_B.weight", 0
    for name in filter(None, (embedding, head)):
        # A copy of the layer in `modules_to_save`, or the layer itself, which PEFT saves beside a LoRA of it.
        yield f"{_PREFIX}{name}.weight", 0
        yield f"{_PREFIX}{name}.base_layer.weight", 0
