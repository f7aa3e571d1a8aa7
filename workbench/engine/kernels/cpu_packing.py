"""Keeps bitsandbytes from repacking 4-bit weights on a CPU while they are trained on.

On processors with AVX512-BF16, ``Linear4bit`` rewrites its weight into a layout for fast inference as soon as it is
called outside training (bitsandbytes 0.50, ``nn/modules.py``). The kernel for that layout has no backward: an
evaluation before or between training steps would silently cut the gradient of everything below the layer. The layout
also rounds the constants, so that a base that was repacked is not quite the one that was loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CpuPacking:
    """The layers of a model that would repack themselves; none on a GPU or an older processor."""

    def __init__(self, model: Any) -> None:
        self._layers = [layer for layer in model.modules() if getattr(layer, "support_avx512bf16_for_cpu", False)]
        self.forbid()

    def forbid(self) -> None:
        """Leave weights as they are: for training, and whatever is measured beside it."""
        for layer in self._layers:
            layer.support_avx512bf16_for_cpu = False

    def allow(self) -> None:
        """Let layers repack when they are called next: replies come faster."""
        for layer in self._layers:
            layer.support_avx512bf16_for_cpu = True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, weights that are packed stay so, also when PEFT asks for a state dict as it attaches an adapter.

        bitsandbytes would unpack them for it, which rounds once more: replies would depend on when an adapter came.
        """
        states = [layer.weight.quant_state for layer in self._packed]
        for state in states:
            state.packing_format_for_cpu = False
        try:
            yield
        finally:
            for state in states:
                state.packing_format_for_cpu = True

    @property
    def _packed(self) -> list[Any]:
        return [layer for layer in self._layers if getattr(layer.weight.quant_state, "packing_format_for_cpu", False)]

    @property
    def happened(self) -> bool:
        """Whether any layer was repacked; such a base must be loaded again before it is trained on."""
        return bool(self._packed)
