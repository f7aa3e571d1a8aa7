"""FourierFT (Gao et al. 2024, arXiv:2405.03003): trains some frequencies of ΔW."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError


class FourierFt(Method):
    """ΔW is the inverse Fourier transform of ``n_frequency`` trained coefficients at random places."""

    name = "fourierft"
    label = "FourierFT"
    help = "Take it for the smallest files: a thousand numbers a layer. Wants a learning rate of 1e-2 or more."
    peft_type = "FOURIERFT"
    config_class = "FourierFTConfig"
    prefix = "fourierft_"
    builds_weight = True
    options = MappingProxyType(
        {
            "n_frequency": Option(1000, "Trained frequencies of a layer.", least=1, most=10_000_000),
            "scaling": Option(150.0, "ΔW is multiplied by it.", least=0.0, most=1e6),
            "random_loc_seed": Option(777, "Seed of the choice of frequencies.", least=0),
        }
    )
    layers = frozenset({"linear", "conv1d"})
    float32 = ("fourierft_",)

    def size_words(self, options: Mapping[str, Any]) -> str:
        return f"{self.chosen(options)['n_frequency']} frequencies"

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        count = self.value(settings, "n_frequency")
        if count > layer.in_features * layer.out_features:
            raise WorkbenchError(
                f"{layer.name} has fewer weights than n_frequency, {count}.",
                "Lower n_frequency in adapter.options, or leave this layer out.",
                kind="adapter_target",
            )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        count = self.value(settings, "n_frequency")
        return (AdapterTensor("fourierft_spectrum", (count,), is_float32=True),)


METHOD = FourierFt()
