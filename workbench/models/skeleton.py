"""The module tree of a model as plain data: names, classes, shapes. No torch needed to hold, read or price one.

It is made from a configuration on torch's meta device (:mod:`workbench.models.build`), which costs the import of torch
and some 50 ms, and kept as JSON. Repeated layers are folded: one :class:`Module` stands for all its ``indices``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

ModuleKind = Literal["linear", "conv1d", "embedding", "convolution", "other"]
"""``linear``: ``torch.nn.Linear`` or a class made from it (``facts["plain"]``: exactly it); ``conv1d``: GPT-2's
transposed one; ``convolution``: ``torch.nn.Conv1d``, ``Conv2d`` or ``Conv3d``."""


@dataclass(frozen=True)
class Tensor:
    """A parameter or a buffer that hangs directly on a module.

    ``tied_to`` is the full name of the tensor that holds the storage, where this one is a second name of it.
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
    """A module, or several equal ones that are the ``indices`` of one list (``model.layers.0`` … ``.27``).

    ``name`` is the last part of the full name; it is empty for a folded module, whose names are its indices.
    """

    name: str
    class_name: str
    kind: ModuleKind = "other"
    tensors: tuple[Tensor, ...] = ()
    children: tuple["Module", ...] = ()
    indices: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def count(self) -> int:
        """How many modules this one stands for."""
        return len(self.indices) or 1

    @cached_property
    def parameters(self) -> int:
        """Parameters of one such module with all below it; a tied tensor counts where it is stored."""
        own = sum(t.size for t in self.tensors if not t.is_buffer and t.tied_to is None)
        return own + sum(child.parameters * child.count for child in self.children)

    @property
    def label(self) -> str:
        """``q_proj``, ``0``, or ``0–27`` for a folded module with consecutive indices."""
        if not self.indices:
            return self.name
        first, last = self.indices[0], self.indices[-1]
        if len(self.indices) == 1:
            return str(first)
        if last - first + 1 == len(self.indices):
            return f"{first}–{last}"
        return ", ".join(map(str, self.indices))


@dataclass(frozen=True)
class Skeleton:
    """A whole model.

    ``output`` is the full name of the module that makes the logits (PEFT's ``all-linear`` leaves it out).
    ``config`` holds the configuration the tree was made from.
    """

    architecture: str
    model_type: str
    root: Module
    output: str | None
    config: dict[str, Any] = field(default_factory=dict, hash=False)

    @cached_property
    def _hash(self) -> int:
        return hash((self.architecture, self.model_type, self.root, self.output))

    def __hash__(self) -> int:
        # What is known of a model is kept by its skeleton, and a keystroke asks for it some dozen times.
        return self._hash

    @property
    def parameters(self) -> int:
        """Logical parameters of the base model, tied ones once."""
        return self.root.parameters

    def walk(self) -> Iterator[tuple[str, Module]]:
        """Every module once, folded ones under the name of their first index: ``("model.layers.0.self_attn", …)``."""
        yield from _walk("", self.root)


def _walk(prefix: str, module: Module) -> Iterator[tuple[str, Module]]:
    yield prefix, module
    for child in module.children:
        part = str(child.indices[0]) if child.indices else child.name
        yield from _walk(f"{prefix}.{part}" if prefix else part, child)
