"""SHiRA (Bhardwaj et al. 2024, arXiv:2406.13175): trains a few weights of each layer, chosen at random."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import LAYERS, PLACES, QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError


class Shira(Method):
    """A sparse ΔW with as many elements as a LoRA of rank r."""

    name = "shira"
    label = "SHiRA"
    help = (
        "Take it to switch or mix adapters: it changes 1 or 2 % of the weights, at full rank. Files hold their places."
    )
    peft_type = "SHIRA"
    config_class = "ShiraConfig"
    prefix = "shira_"
    builds_weight = True
    reads = (PLACES - LAYERS) | {"r"}
    options = MappingProxyType({"random_seed": Option(0, "Seed of the choice of weights.", least=0)})
    quantized = QUANTIZED
    float32 = ("shira_",)
    excludes = False

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        if r * (layer.in_features + layer.out_features) > layer.in_features * layer.out_features:
            raise WorkbenchError(
                f"SHiRA with r = {r} would train more weights than {layer.name} has.",
                "Choose a smaller rank or leave this layer out.",
                kind="adapter_target",
            )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        count = r * (layer.in_features + layer.out_features)
        return (
            AdapterTensor("shira_weight", (count,), is_float32=True),
            AdapterTensor("shira_indices", (2, count), is_trained=False, is_int32=True),
        )


METHOD = Shira()
