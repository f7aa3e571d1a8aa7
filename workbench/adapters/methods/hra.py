"""HRA (Yuan et al. 2024, arXiv:2405.17484): rotates a layer's inputs by r Householder reflections."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Hra(Method):
    """W·H₁·…·Hᵣ: a rotation and a low-rank change at once."""

    name = "hra"
    label = "HRA"
    help = "Take it to keep what the base knows at half of LoRA's parameters. Take an even r; slower with a high one."
    peft_type = "HRA"
    config_class = "HRAConfig"
    prefix = "hra_"
    builds_weight = True
    reads = PLACES | {"r"}
    options = MappingProxyType({"apply_GS": Option(False, "Orthogonalize the reflections (Gram–Schmidt).")})
    float32 = ("hra_",)

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        return (AdapterTensor("hra_u", (layer.in_features, r), is_float32=True),)


METHOD = Hra()
