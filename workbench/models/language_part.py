"""Finds the parts of a model that get no adapter: vision and audio towers, projectors, indexers, some routers.

Training on text does not reach them, so an adapter there would never get a gradient. Routers decide which experts
learn, and one that returns a pair is no layer that PEFT can wrap. Module trees mark such a part (``frozen`` among a
module's facts), targets leave it out, and PEFT gets it as ``exclude_modules``. Needs no torch.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

ROUTER = "router"

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel

# What a part is, by words in its name or class. The first that matches counts.
_KINDS = (
    ("projector", re.compile(r"project|connector|merger|adapter|aligner|mlp1|embed_(vision|audio)", re.IGNORECASE)),
    ("audio", re.compile(r"audio|speech|acoustic|sound|voice", re.IGNORECASE)),
    ("vision", re.compile(r"vis|image|img|vit|video|vq|perceiver|resampler", re.IGNORECASE)),
)


def frozen_parts(model: "PreTrainedModel") -> dict[str, str]:
    """The parts of a model that get no adapter: full name → what it is, such as ``vision`` or ``indexer``.

    A module inside a part has no entry of its own.
    """
    decoder = model.get_decoder()
    kept = {id(module) for module in (decoder, model.get_output_embeddings(), _embeddings(model)) if module is not None}
    parts: dict[str, str] = {}
    if _has_other_parts(model):
        parts.update(_outside("", model, kept))
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    parts.update(_inside(prefix, decoder))
    return parts


def exclusion_pattern(parts: Iterable[str]) -> str:
    """A regular expression that matches frozen parts and everything in them, for PEFT's ``exclude_modules``.

    Parts that differ in one index share an alternative: ``model\\.layers\\.(?:3|8)\\.cross_attn``. Empty for no parts.
    """
    folded: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        before, index, after = _at_index(part)
        folded.setdefault((before, after), []).append(index)
    alternatives = [
        re.escape(before) + (f"(?:{'|'.join(indices)})" if indices != [""] else "") + re.escape(after)
        for (before, after), indices in folded.items()
    ]
    return rf"(?:{'|'.join(alternatives)})(?:\..*)?" if alternatives else ""


def _at_index(name: str) -> tuple[str, str, str]:
    """A name split around its first index; the index is empty where there is none."""
    match = re.search(r"(?<=\.)\d+(?=\.|$)", name)
    return (name[: match.start()], match[0], name[match.end() :]) if match else (name, "", "")


def _has_other_parts(model: "PreTrainedModel") -> bool:
    """Whether the configuration has one for the language part beside others."""
    return model.config.get_text_config() is not model.config


def _embeddings(model: "PreTrainedModel") -> "Module | None":
    try:
        embeddings: Module | None = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return embeddings


def _outside(path: str, module: "Module", kept: set[int]) -> Iterator[tuple[str, str]]:
    """The largest modules with weights that contain nothing of the language part."""
    for name, child in module.named_children():
        full = f"{path}.{name}" if path else name
        if id(child) in kept:
            continue
        if any(id(inner) in kept for inner in child.modules()):
            yield from _outside(full, child, kept)
        elif next(child.parameters(), None) is not None:
            yield full, _kind(name, child)


def _inside(path: str, decoder: "Module") -> Iterator[tuple[str, str]]:
    """Parts of the decoder itself: what only images reach, indexers, which only choose tokens, and routers."""
    skipped = "\0"
    for name, module in decoder.named_modules(prefix=path):
        if name.startswith(f"{skipped}."):
            continue
        class_name = type(module).__name__
        kind = ""
        if class_name.endswith("Indexer"):
            kind = "indexer"
        elif "CrossAttentionDecoderLayer" in class_name:
            kind = "cross-attention"
        elif class_name.endswith("Router") and hasattr(module, "in_features"):  # Llama 4: a linear layer itself
            kind = ROUTER
        elif class_name.endswith(("Router", "Gating")):  # of a module of its own, its linear layer
            yield from (
                (f"{name}.{inner}", ROUTER) for inner, child in module.named_children() if hasattr(child, "in_features")
            )
        elif name.endswith(".embed_tokens_extend"):  # Phi-4-multimodal
            kind = "vision and audio"
        if kind:
            skipped = name
            yield name, kind


def _kind(name: str, module: "Module") -> str:
    words = f"{name} {type(module).__name__}"
    return next((kind for kind, pattern in _KINDS if pattern.search(words)), "other")
