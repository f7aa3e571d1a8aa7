"""A layer of the base and the tensors that an adapter adds to it, by shape; needs no torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """A layer of the base, as an adapter method needs to know it.

    Attributes:
        name: full name, such as ``model.layers.0.self_attn.q_proj``.
        kind: ``linear``, ``conv1d`` (GPT-2's transposed linear layer), ``embedding``, ``convolution`` or ``other``.
        class_name: of the module.
        weight: shape of its weight.
        has_bias: whether the layer has a bias.
        channels: (in, out) channels of a convolution.
        kernel: kernel size of a convolution.
        groups: of a convolution.
        model_type: transformers' name of the architecture.
    """

    name: str
    kind: str
    class_name: str
    weight: tuple[int, ...]
    has_bias: bool = False
    channels: tuple[int, int] = (0, 0)
    kernel: tuple[int, ...] = ()
    groups: int = 1
    model_type: str = ""

    @property
    def in_features(self) -> int:
        """Width of the layer's input; for an embedding the size of its vocabulary."""
        if self.kind == "convolution":
            return self.channels[0]
        return self.weight[1] if self.kind == "linear" else self.weight[0]

    @property
    def out_features(self) -> int:
        """Width of the layer's output."""
        if self.kind == "convolution":
            return self.channels[1]
        return self.weight[0] if self.kind == "linear" else self.weight[1]

    @property
    def leaf(self) -> str:
        """The last part of its name, such as ``q_proj``."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class AdapterTensor:
    """A tensor that an adapter adds.

    Attributes:
        name: its name below the layer, as in the file: ``lora_A.weight``.
        shape: as in the file.
        is_float32: it stays in float32, whatever dtype the adapter is trained in.
        is_trained: the optimizer updates it; otherwise it is drawn once and stays.
        is_saved: it is in the adapter's file.
        is_int32: it holds whole numbers.
        is_parameter: PEFT counts it among the model's parameters although it is not trained.
    """

    name: str
    shape: tuple[int, ...]
    is_float32: bool = False
    is_trained: bool = True
    is_saved: bool = True
    is_int32: bool = False
    is_parameter: bool = False

    def dtype(self, adapter: str) -> str:
        """Its dtype in an adapter that is trained in this one."""
        return "int32" if self.is_int32 else "float32" if self.is_float32 else adapter

    @property
    def label(self) -> str:
        """Its name without ``weight``: ``lora_A``."""
        return self.name.removesuffix(".weight")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)
