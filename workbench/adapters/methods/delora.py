"""DeLoRA (Bini et al. 2025, arXiv:2503.18225): LoRA whose strength is bounded apart from its direction."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Delora(Method):
    """ΔW = λ·‖W‖/r · B·Ξ·A, with Ξ normalizing each rank."""

    name = "delora"
    label = "DeLoRA"
    help = "Take it where LoRA diverges at high learning rates: the size of ΔW is bounded. Builds ΔW in each step."
    peft_type = "DELORA"
    config_class = "DeloraConfig"
    prefix = "delora_"
    reads = PLACES | {"r", "rank_pattern"}
    options = MappingProxyType(
        {
            "delora_lambda": Option(15, "First value of the bound λ.", least=1, most=10000),
            "module_dropout": Option(0.0, "Dropout probability on the adapter's inputs.", least=0.0, most=0.99),
        }
    )
    float32 = ("delora_",)

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        return (
            AdapterTensor("delora_A", (r, layer.in_features), is_float32=True),
            AdapterTensor("delora_B", (layer.out_features, r), is_float32=True),
            AdapterTensor("delora_lambda", (1,), is_float32=True),
            AdapterTensor("delora_w_norm", (layer.in_features,), is_float32=True, is_trained=False),
        )


METHOD = Delora()
