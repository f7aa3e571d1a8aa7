"""Prevents bitsandbytes from repacking 4-bit weights on a CPU while a model is trained.

On CPUs with AVX512-BF16, ``Linear4bit`` converts its weight to a layout for fast inference when it is first called in
eval mode (bitsandbytes 0.50, ``nn/modules.py``). The kernel for that layout has no backward: an evaluation before or
between training steps would silently cut off the gradient of everything below the layer. The layout also rounds the
quantization constants, so a repacked base differs slightly from the one that was loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitsandbytes.nn import Linear4bit
    from transformers import PreTrainedModel


class CpuPacking:
    """Switches repacking on or off for the layers of a model; there are none on a GPU or an older CPU.

    A layer whose rows are no whole number of blocks is never repacked: bitsandbytes fails on it.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self._layers: list[Linear4bit] = [
            layer for layer in model.modules() if getattr(layer, "support_avx512bf16_for_cpu", False)
        ]
        self.forbid()
        self._layers = [layer for layer in self._layers if layer.in_features % layer.weight.blocksize == 0]

    def forbid(self) -> None:
        """Leave weights as they are: for training, and for everything measured during a run."""
        for layer in self._layers:
            layer.support_avx512bf16_for_cpu = False

    def allow(self) -> None:
        """Let each layer repack its weight at its next call, which speeds up replies."""
        for layer in self._layers:
            layer.support_avx512bf16_for_cpu = True

    @contextmanager
    def without_unpacking(self) -> Iterator[None]:
        """Within, packed weights stay packed when PEFT reads a state dict to attach an adapter.

        bitsandbytes would unpack them for the state dict, which rounds once more: replies would then depend on when an
        adapter was attached.
        """
        states = [layer.weight.quant_state for layer in self._packed_layers]
        for state in states:
            state.packing_format_for_cpu = False
        try:
            yield
        finally:
            for state in states:
                state.packing_format_for_cpu = True

    @property
    def _packed_layers(self) -> "list[Linear4bit]":
        return [layer for layer in self._layers if getattr(layer.weight.quant_state, "packing_format_for_cpu", False)]

    @property
    def has_packed_layers(self) -> bool:
        """Whether any layer was repacked; such a base must be loaded again before it is trained."""
        return bool(self._packed_layers)
