"""BOFT (Liu et al. 2023, arXiv:2311.06243): rotates blocks of a weight's inputs and scales its outputs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError


class Boft(Method):
    """diag(s)·W·R. One butterfly factor: more of them need a CUDA extension that PEFT compiles."""

    name = "boft"
    label = "BOFT"
    help = "Take OFT first; BOFT also scales the outputs, and holds a square matrix of each layer's inputs in memory."
    peft_type = "BOFT"
    config_class = "BOFTConfig"
    prefix = "boft_"
    builds_weight = True
    options = MappingProxyType(
        {
            "boft_block_size": Option(
                4, "Size of a rotated block; must divide the inputs of a layer.", least=2, most=8192
            ),
            "boft_dropout": Option(0.0, "Probability that a block stays as it is for a step.", least=0.0, most=0.99),
        }
    )
    float32 = ("boft_",)

    def size_words(self, options: Mapping[str, Any]) -> str:
        return f"block {self.chosen(options)['boft_block_size']}"

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        size = self.value(settings, "boft_block_size")
        if layer.in_features % size:
            raise WorkbenchError(
                f"BOFT does not fit {layer.name}: boft_block_size {size} does not divide its "
                f"{layer.in_features} inputs.",
                "Choose another boft_block_size in adapter.options, or take oft, which adjusts it.",
                kind="adapter_target",
            )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        size = self.value(settings, "boft_block_size")
        return (
            AdapterTensor("boft_R", (1, layer.in_features // size, size, size), is_float32=True),
            AdapterTensor("boft_s", (layer.out_features, 1), is_float32=True),
        )


METHOD = Boft()
