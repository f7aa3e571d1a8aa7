"""RandLoRA (Albert et al. 2025, arXiv:2502.00987): a full-rank sum of random matrices with trained scales."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings

if TYPE_CHECKING:
    from workbench.recipe.sections.adapter import AdapterSection


class RandLora(Method):
    """ΔW = Σ Bᵢ·Λᵢ·A·Γᵢ, with A and B frozen and shared. A lower r means more parameters."""

    name = "randlora"
    label = "RandLoRA"
    help = "Take it for full rank at LoRA's number of parameters. A lower r trains more of them; slower than LoRA."
    peft_type = "RANDLORA"
    config_class = "RandLoraConfig"
    prefix = "randlora_"
    reads = PLACES | {"r"}
    options = MappingProxyType(
        {
            "randlora_alpha": Option(640, "Scaling: ΔW is multiplied by alpha / r.", least=1, most=65536),
            "randlora_dropout": Option(0.0, "Dropout probability on the adapter's inputs.", least=0.0, most=0.99),
            "projection_prng_key": Option(0, "Seed of the shared matrices.", least=0),
            "sparse": Option(False, "Take random matrices of -1, 0 and 1."),
            "very_sparse": Option(False, "Take still more zeros."),
        }
    )
    layers = frozenset({"linear", "conv1d"})
    quantized = QUANTIZED
    float32 = ("randlora_",)
    excludes = False
    refuses_mamba = True

    def arguments(self, adapter: "AdapterSection") -> dict[str, Any]:
        # PEFT would save the shared matrices once for each layer; they are drawn again from their seed.
        return super().arguments(adapter) | {"save_projection": False}

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        narrow = min(layer.in_features, layer.out_features)
        bases = -(-narrow // r)
        return (
            AdapterTensor("randlora_lambda", (r, bases), is_float32=True),
            AdapterTensor("randlora_gamma", (bases, narrow), is_float32=True),
        )

    def shared(self, layers: Sequence[Layer], settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        widest = max(layer.in_features for layer in layers), max(layer.out_features for layer in layers)
        r, bases = settings.r, -(-min(widest) // settings.r)
        return (
            AdapterTensor("randlora_A", (r, 1, min(widest)), True, is_trained=False, is_saved=False),
            AdapterTensor("randlora_B", (max(widest), bases, r), True, is_trained=False, is_saved=False),
        )

    def multiplied(self, layer: Layer, r: int, settings: AdapterSettings) -> int:
        narrow = min(layer.in_features, layer.out_features)
        return -(-narrow // r) * r * (layer.in_features + layer.out_features)


METHOD = RandLora()
