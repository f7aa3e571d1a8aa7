"""RoAd (Liao and Monz 2024, arXiv:2409.00119): rotates pairs of a layer's outputs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import LAYERS, PLACES, QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError

_SHARE = {"road_1": 0.5, "road_2": 1, "road_4": 2}


class Road(Method):
    """An angle and a length for pairs of outputs."""

    name = "road"
    label = "RoAd"
    help = (
        "Take it to serve very many adapters at once: a vector a layer, no matrix product. Wants a high learning rate."
    )
    peft_type = "ROAD"
    config_class = "RoadConfig"
    prefix = "road_"
    reads = PLACES - LAYERS
    options = MappingProxyType({
        "variant": Option("road_1", "Parameters of a pair of outputs: 2 (road_1), 4 (road_2) or 8 (road_4).",
                          choices=("road_1", "road_2", "road_4")),
        "group_size": Option(64, "Outputs in which pairs are formed; must divide a layer's.", least=2, most=65536),
    })  # fmt: skip
    quantized = QUANTIZED
    float32 = ("road_",)
    excludes = False

    def size_words(self, options: Mapping[str, Any]) -> str:
        return str(self.chosen(options)["variant"])

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        size = self.value(settings, "group_size")
        if size % 2 or layer.out_features % size:
            raise WorkbenchError(
                f"RoAd does not fit {layer.name}: group_size {size} is not an even divisor of its {layer.out_features} "
                "outputs.",
                "Choose another group_size in adapter.options.",
                kind="adapter_target",
            )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        size = int(layer.out_features * _SHARE[self.value(settings, "variant")])
        return (
            AdapterTensor("road_theta", (size,), is_float32=True),
            AdapterTensor("road_alpha", (size,), is_float32=True),
        )


METHOD = Road()
