"""LoHa (Hyeon-Woo et al. 2021, FedPara, arXiv:2108.06098): the element-wise product of two low-rank matrices."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Loha(Method):
    """ΔW = (A₁·B₁) ⊙ (A₂·B₂): rank up to r² for twice LoRA's parameters at the same r."""

    name = "loha"
    label = "LoHa"
    help = "Take it for a high rank at few parameters: ΔW has rank up to r². Builds ΔW in each step, so it is slower."
    peft_type = "LOHA"
    config_class = "LoHaConfig"
    prefix = "hada_"
    builds_weight = True
    reads = PLACES | {"r", "rank_pattern", "alpha_pattern"}
    options = MappingProxyType(
        {
            "alpha": Option(16, "Scaling: ΔW is multiplied by alpha / r.", least=1, most=65536),
            "rank_dropout": Option(0.0, "Dropout probability of ranks.", least=0.0, most=0.99),
            "module_dropout": Option(
                0.0, "Probability that a whole layer's adapter is off for a step.", least=0.0, most=0.99
            ),
        }
    )
    float32 = ("hada_",)

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        down, up = (layer.out_features, r), (r, layer.in_features)
        names = {"hada_w1_a": down, "hada_w1_b": up, "hada_w2_a": down, "hada_w2_b": up}
        return tuple(AdapterTensor(name, shape, is_float32=True) for name, shape in names.items())


METHOD = Loha()
