"""A model's module tree as plain data: the names, classes and tensor shapes of its modules, without torch.

:mod:`workbench.models.build` makes it from a configuration with torch; :mod:`workbench.models.skeleton_json` stores it.
Repeated layers are folded: one :class:`Module` stands for all of its ``indices``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypedDict

ModuleKind = Literal["linear", "conv1d", "embedding", "convolution", "other"]
"""``linear``: ``torch.nn.Linear`` or a subclass; ``conv1d``: transformers' ``Conv1D``, the transposed linear layer of
GPT-2; ``convolution``: ``torch.nn.Conv1d``, ``Conv2d`` or ``Conv3d``."""


class ModelFacts(TypedDict, total=False):
    """Facts about the whole model, on the root module. Facts that the configuration does not state are absent.

    ``float32_in_float16`` and ``always_float32`` are name patterns of the modules that transformers keeps in float32
    if the model is loaded in float16, or always. ``moe_names`` is the family by which PEFT renames targets of fused
    experts. ``input_embedding`` is a full name. ``new_tokens`` counts rows added to the embeddings for the tokenizer,
    where that was asked for (``model.resize_embeddings``); ``vocab_size`` includes them.
    """

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    experts_per_token: int
    tied_embeddings: bool
    input_embedding: str
    float32_in_float16: list[str]
    always_float32: list[str]
    moe_names: str
    new_tokens: int


class ModuleFacts(ModelFacts, total=False):
    """Facts about one module.

    ``plain``: the layer is exactly ``torch.nn.Linear``, not a subclass, or it is a ``Conv1D``. ``convertible``:
    bitsandbytes would quantize this layer. ``is_transposed``: the weights of fused experts are stored as ``[in, out]``.
    ``frozen``: what kind of part this module is, such as ``vision``, if it and all in it get no adapter in training on
    text.
    """

    plain: bool
    convertible: bool
    in_channels: int
    out_channels: int
    kernel_size: list[int]
    groups: int
    is_transposed: bool
    frozen: str


@dataclass(frozen=True)
class Tensor:
    """A parameter or buffer that belongs directly to a module.

    ``tied_to`` is the full name of the tensor whose storage this one shares, if any.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_buffer: bool = False
    tied_to: str | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Module:
    """A module, or several equal modules of one list (``model.layers.0`` … ``.27``), given by their ``indices``.

    ``name`` is the last part of the full name; it is empty for a folded module, which has indices instead.
    """

    name: str
    class_name: str
    kind: ModuleKind = "other"
    tensors: tuple[Tensor, ...] = ()
    children: tuple["Module", ...] = ()
    indices: tuple[int, ...] = ()
    facts: ModuleFacts = field(default_factory=ModuleFacts, hash=False)

    @property
    def count(self) -> int:
        """The number of modules that this one stands for."""
        return len(self.indices) or 1

    @cached_property
    def parameters(self) -> int:
        """Parameters of one such module, including its children. A tied tensor counts only where it is stored."""
        own = sum(t.size for t in self.tensors if not t.is_buffer and t.tied_to is None)
        return own + sum(child.parameters * child.count for child in self.children)

    @property
    def label(self) -> str:
        """The name to show: ``q_proj``, ``0``, or ``0–27`` for a folded module with consecutive indices."""
        if not self.indices:
            return self.name
        first, last = self.indices[0], self.indices[-1]
        if len(self.indices) == 1:
            return str(first)
        if last - first + 1 == len(self.indices):
            return f"{first}–{last}"
        return ", ".join(map(str, self.indices))


@dataclass(frozen=True)
class FrozenPart:
    """A part of a model that gets no adapter: its full name, what it is, and its parameters."""

    name: str
    kind: str
    parameters: int


@dataclass(frozen=True)
class Skeleton:
    """The module tree of a whole model.

    ``output`` is the full name of the module that computes the logits (PEFT's ``all-linear`` skips it). ``config`` is
    the content of the ``config.json`` from which the tree was built.
    """

    architecture: str
    model_type: str
    root: Module
    output: str | None
    config: dict[str, object] = field(default_factory=dict, hash=False)

    @cached_property
    def _hash(self) -> int:
        return hash((self.architecture, self.model_type, self.root, self.output))

    def __hash__(self) -> int:
        # Cached, because skeletons are keys of caches that every keystroke looks up a dozen times.
        return self._hash

    @property
    def parameters(self) -> int:
        """Parameters of the model; tied ones count once."""
        return self.root.parameters

    @cached_property
    def frozen_parts(self) -> tuple[FrozenPart, ...]:
        """The parts that get no adapter in training on text; one in a folded list is repeated for each index."""
        return tuple(_frozen_parts("", self.root))

    def walk(self) -> Iterator[tuple[str, Module]]:
        """Yield every module with its full name; a folded one once, named after its first index."""

        yield from _walk("", self.root)


def _walk(prefix: str, module: Module) -> Iterator[tuple[str, Module]]:
    yield prefix, module
    for child in module.children:
        part = str(child.indices[0]) if child.indices else child.name
        yield from _walk(f"{prefix}.{part}" if prefix else part, child)


def _frozen_parts(prefix: str, module: Module) -> Iterator[FrozenPart]:
    for child in module.children:
        for part in map(str, child.indices) if child.indices else (child.name,):
            name = f"{prefix}.{part}" if prefix else part
            if kind := child.facts.get("frozen"):
                yield FrozenPart(name, kind, child.parameters)
            else:
                yield from _frozen_parts(name, child)
