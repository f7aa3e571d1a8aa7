"""LoKr (Yeh et al. 2023, LyCORIS, arXiv:2309.14859): a Kronecker product, of which one factor may be of low rank."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings


class Lokr(Method):
    """ΔW = W₁ ⊗ W₂, with W₂ = A·B unless r is large for it."""

    name = "lokr"
    label = "LoKr"
    help = "Take it for the smallest files at full rank: a fraction of LoRA's parameters. Builds ΔW in each step."
    peft_type = "LOKR"
    config_class = "LoKrConfig"
    prefix = "lokr_"
    builds_weight = True
    reads = PLACES | {"r", "rank_pattern", "alpha_pattern"}
    options = MappingProxyType(
        {
            "alpha": Option(16, "Scaling: ΔW is multiplied by alpha / r.", least=1, most=65536),
            "rank_dropout": Option(0.0, "Dropout probability of ranks.", least=0.0, most=0.99),
            "module_dropout": Option(
                0.0, "Probability that a whole layer's adapter is off for a step.", least=0.0, most=0.99
            ),
            "decompose_both": Option(False, "Make the first factor of low rank too, where r is small for it."),
            "decompose_factor": Option(-1, "Size of the first factor; -1: near the square root.", least=-1, most=8192),
            "rank_dropout_scale": Option(False, "Scale up what rank dropout leaves."),
        }
    )
    float32 = ("lokr_",)

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        options = self.chosen(dict(settings.options))
        in_1, in_2 = factors(layer.in_features, options["decompose_factor"])
        out_1, out_2 = factors(layer.out_features, options["decompose_factor"])
        found: dict[str, tuple[int, ...]] = {}
        if options["decompose_both"] and r < max(out_1, in_1) / 2:
            found |= {"lokr_w1_a": (out_1, r), "lokr_w1_b": (r, in_1)}
        else:
            found["lokr_w1"] = (out_1, in_1)
        if r < max(out_2, in_2) / 2:
            found |= {"lokr_w2_a": (out_2, r), "lokr_w2_b": (r, in_2)}
        else:
            found["lokr_w2"] = (out_2, in_2)
        return tuple(AdapterTensor(name, shape, is_float32=True) for name, shape in found.items())


def factors(size: int, factor: int) -> tuple[int, int]:
    """Two factors of a size, the smaller one first, as ``peft.tuners.lokr.layer.factorization`` chooses them."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = size if factor == -1 else factor
    small, large = 1, size
    while small < large:
        nearer = next(number for number in range(small + 1, size + 1) if size % number == 0)
        if nearer + size // nearer > small + large or nearer > most:
            break
        small, large = nearer, size // nearer
    return min(small, large), max(small, large)


METHOD = Lokr()
