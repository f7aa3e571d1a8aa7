"""C³A (Chen et al. 2024, arXiv:2407.19342): circular convolutions in place of low-rank matrices."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError


class C3a(Method):
    """ΔW of circulant blocks, computed by Fourier transforms."""

    name = "c3a"
    label = "C³A"
    help = "Take it for high rank at few parameters; the block size must divide every layer."
    peft_type = "C3A"
    config_class = "C3AConfig"
    prefix = "c3a_"
    options = MappingProxyType({
        "block_size": Option(64, "Size of a circulant block: larger means fewer parameters.", least=1, most=65536),
        "init_weights": Option("xavier_uniform", "Initialization of the blocks.",
                               choices=("gaussian", "kaiming_uniform", "xavier_uniform")),
    })  # fmt: skip
    float32 = ("c3a_",)
    excludes = False

    def size_words(self, options: Mapping[str, Any]) -> str:
        return f"block {self.chosen(options)['block_size']}"

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        size = self.value(settings, "block_size")
        common = math.gcd(layer.in_features, layer.out_features)
        if common % size:
            raise WorkbenchError(
                f"C³A does not fit {layer.name}: block_size {size} does not divide {layer.out_features} × "
                f"{layer.in_features}.",
                f"Choose a divisor of {common} as block_size in adapter.options.",
                kind="adapter_target",
            )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        size = self.value(settings, "block_size")
        shape = (layer.out_features // size, layer.in_features // size, size)
        return (AdapterTensor("c3a_kernel", shape, is_float32=True),)


METHOD = C3a()
