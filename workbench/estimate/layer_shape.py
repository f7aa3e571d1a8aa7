"""Reads from a module tree the widths of a transformer's layers that the memory formula needs."""

from dataclasses import dataclass
from functools import lru_cache

from workbench.models.skeleton import Module, Skeleton

# Softcapped scores, ALiBi, or one key head that is broadcast: no fused kernel computes these in transformers 5.
_WITHOUT_FLASH = {"bloom", "falcon", "gemma2", "mpt"}


@dataclass(frozen=True)
class Block:
    """The linear layers of one module, such as an attention or an MLP.

    Attributes:
        path: the module's path, with ``*`` for an index.
        inward: (name, in, out) of the layers that read the residual stream.
        back: (name, in, out) of the layer that writes to it, if there is one.
        per_token: how often a token passes through (experts per token).
        experts: number of experts stacked in one parameter; 0 for plain layers.
    """

    path: str
    inward: tuple[tuple[str, int, int], ...]
    back: tuple[str, int, int] | None
    per_token: int = 1
    experts: int = 0

    @property
    def is_gated(self) -> bool:
        """Whether the module is gated (SwiGLU, GeGLU): the inward layers are together twice as wide as ``back``."""
        return self.back is not None and sum(out for _, _, out in self.inward) == 2 * self.back[1]


@dataclass(frozen=True)
class LayerShape:
    """One kind of layer, and the number of such layers."""

    blocks: tuple[Block, ...]
    count: int


@dataclass(frozen=True)
class ModelShape:
    """Widths of a model.

    Attributes:
        trains_rows: whether new rows of its embeddings are trained.
        heads: 0 for a model without attention.
        holds_scores: whether attention scores are stored in full, length × length per head.
        layers: its kinds of layers.
        path: path of the list of its layers.
    """

    hidden: int
    vocabulary: int
    trains_rows: bool
    heads: int
    holds_scores: bool
    layers: tuple[LayerShape, ...]
    path: str

    @property
    def depth(self) -> int:
        return sum(layer.count for layer in self.layers)


@lru_cache(maxsize=64)
def model_shape(skeleton: Skeleton) -> ModelShape:
    """The widths of a model. Its layers are the list with the most parameters in the part that is trained on text."""
    facts = skeleton.root.facts
    path, stack = max(_lists("", skeleton.root), key=lambda found: found[1].parameters)
    hidden = int(facts.get("hidden_size") or 0)
    per_token = int(facts.get("experts_per_token") or 1)
    layers = tuple(
        LayerShape(tuple(_blocks(f"{path}.*", child, hidden, per_token)), child.count)
        for child in stack.children
        if child.indices and "frozen" not in child.facts
    )
    return ModelShape(
        hidden=hidden,
        vocabulary=int(facts.get("vocab_size") or 0),
        trains_rows=bool(facts.get("new_tokens")),
        heads=int(facts.get("heads") or 0),
        holds_scores=text_type(skeleton) in _WITHOUT_FLASH,
        layers=layers,
        path=path,
    )


def text_type(skeleton: Skeleton) -> str:
    """The model type of the language part."""
    text = skeleton.config.get("text_config")
    return str(text.get("model_type") if isinstance(text, dict) else skeleton.model_type)


def _lists(path: str, module: Module) -> list[tuple[str, Module]]:
    found = [(path, module)] if any(child.indices for child in module.children) else []
    for child in module.children:
        if not child.indices and "frozen" not in child.facts:
            found += _lists(f"{path}.{child.name}" if path else child.name, child)
    return found


def _blocks(path: str, module: Module, hidden: int, per_token: int) -> list[Block]:
    linear = [(child.name, *_extent(child)) for child in module.children if child.kind in ("linear", "conv1d")]
    blocks = []
    if linear:
        back = next((layer for layer in reversed(linear) if layer[2] == hidden), None)
        blocks.append(Block(path, tuple(layer for layer in linear if layer is not back), back))
    stacks = [tensor for tensor in module.tensors if len(tensor.shape) == 3 and not tensor.is_buffer]
    if module.kind == "other" and stacks:
        transposed = bool(module.facts.get("is_transposed"))
        widths = [(t.name, t.shape[1], t.shape[2]) if transposed else (t.name, t.shape[2], t.shape[1]) for t in stacks]
        back = next((stack for stack in reversed(widths) if stack[2] == hidden), None)
        blocks.append(
            Block(path, tuple(stack for stack in widths if stack is not back), back, per_token, stacks[0].shape[0])
        )
    for child in module.children:
        if child.kind == "other":
            part = "*" if child.indices else child.name
            blocks += _blocks(f"{path}.{part}", child, hidden, per_token)
    return blocks


def _extent(module: Module) -> tuple[int, int]:
    rows, columns = next(tensor.shape for tensor in module.tensors if tensor.name == "weight")
    return (rows, columns) if module.kind == "conv1d" else (columns, rows)
