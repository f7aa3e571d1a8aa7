"""IA³ (Liu et al. 2022, arXiv:2205.05638): a trained factor for each output, or for each input of the MLP's end."""

import re
from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import LAYERS, PLACES, QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Ia3(Method):
    """Multiplies activations by trained vectors, which start at one."""

    name = "ia3"
    label = "IA³"
    help = "Take it for few records: some thousand parameters, hard to overfit. Wants a learning rate of 3e-3 or more."
    peft_type = "IA3"
    config_class = "IA3Config"
    prefix = "ia3_"
    reads = PLACES - LAYERS
    options = MappingProxyType(
        {
            "feedforward_modules": Option(
                r".*\.(down_proj|mlp\.c_proj|dense_4h_to_h|fc2|fc_out)",
                "A regular expression of the layers whose inputs are scaled; of the other ones it is the outputs.",
            ),
        }
    )
    layers = frozenset({"linear", "conv1d"})
    quantized = QUANTIZED
    float32 = ("ia3_l",)

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        pattern = self.value(settings, "feedforward_modules")
        is_inner = re.fullmatch(pattern, layer.name) is not None
        shape = (1, layer.in_features) if is_inner else (layer.out_features, 1)
        return (AdapterTensor("ia3_l", shape, is_float32=True),)


METHOD = Ia3()
