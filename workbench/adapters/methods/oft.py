"""OFT (Qiu et al. 2023, arXiv:2306.07280): rotates the inputs of a layer, block by block."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Oft(Method):
    """W·R, with R a block-diagonal rotation, which keeps the angles between the base's neurons."""

    name = "oft"
    label = "OFT"
    help = "Take it to keep what the base knows: it rotates and does not stretch. Slower than LoRA, small files."
    peft_type = "OFT"
    config_class = "OFTConfig"
    prefix = "oft_"
    options = MappingProxyType(
        {
            "oft_block_size": Option(
                32, "Size of a rotated block; made to divide the inputs of a layer.", least=2, most=8192
            ),
            "module_dropout": Option(0.0, "Probability that a block stays as it is for a step.", least=0.0, most=0.99),
            "coft": Option(False, "Constrain the rotation to a small distance from none."),
            "eps": Option(6e-5, "Used with coft only: that distance.", least=0.0, most=1.0),
            "block_share": Option(False, "Use one rotation for all blocks of a layer."),
            "use_cayley_neumann": Option(True, "Approximate the rotation by a series: faster."),
            "num_cayley_neumann_terms": Option(5, "Terms of that series.", least=1, most=100),
        }
    )
    quantized = QUANTIZED
    float32 = ("oft_",)

    def size_words(self, options: Mapping[str, Any]) -> str:
        return f"block {self.chosen(options)['oft_block_size']}"

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        options = self.chosen(dict(settings.options))
        size = _dividing(layer.in_features, options["oft_block_size"])
        blocks = 1 if options["block_share"] else layer.in_features // size
        return (AdapterTensor("oft_R.weight", (blocks, size * (size - 1) // 2), is_float32=True),)

    def multiplied(self, layer: Layer, r: int, settings: AdapterSettings) -> int:
        options = self.chosen(dict(settings.options))
        return layer.in_features * _dividing(layer.in_features, options["oft_block_size"])


def _dividing(features: int, size: int) -> int:
    """The nearest size that divides the features, the smaller of two: ``OFTLayer.adjust_oft_parameters``."""
    if size >= features:
        return features
    higher = next(number for number in range(size, features + 1) if features % number == 0)
    lower = next(number for number in range(size, 0, -1) if features % number == 0)
    return lower if size - lower <= higher - size else higher


METHOD = Oft()
