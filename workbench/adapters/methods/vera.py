"""VeRA (Kopiczko et al. 2023, arXiv:2310.11454): two vectors a layer on random matrices that all layers share."""

from collections.abc import Sequence
from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Vera(Method):
    """ΔW = diag(b)·B·diag(d)·A, with A and B frozen and shared."""

    name = "vera"
    label = "VeRA"
    help = (
        "Take it for many small adapters: a tenth of LoRA's parameters. Wants a high r (256) and learning rate (5e-3)."
    )
    peft_type = "VERA"
    config_class = "VeraConfig"
    prefix = "vera_"
    reads = PLACES | {"r"}
    options = MappingProxyType(
        {
            "d_initial": Option(0.1, "First value of the vector d.", least=0.0, most=100.0),
            "vera_dropout": Option(0.0, "Dropout probability on the adapter's inputs.", least=0.0, most=0.99),
            "projection_prng_key": Option(0, "Seed of the shared matrices.", least=0),
            "save_projection": Option(True, "Save the shared matrices with the adapter: larger files, safe to move."),
        }
    )
    layers = frozenset({"linear", "conv1d"})
    quantized = QUANTIZED
    float32 = ("vera_",)
    excludes = False

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        return (
            AdapterTensor("vera_lambda_b", (layer.out_features,), is_float32=True),
            AdapterTensor("vera_lambda_d", (r,), is_float32=True),
        )

    def shared(self, layers: Sequence[Layer], settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        widest = max(layer.in_features for layer in layers), max(layer.out_features for layer in layers)
        is_saved = bool(self.value(settings, "save_projection"))
        return (
            AdapterTensor("vera_A", (settings.r, widest[0]), True, is_trained=False, is_saved=is_saved),
            AdapterTensor("vera_B", (widest[1], settings.r), True, is_trained=False, is_saved=is_saved),
        )

    def multiplied(self, layer: Layer, r: int, settings: AdapterSettings) -> int:
        return r * (layer.in_features + layer.out_features)


METHOD = Vera()
