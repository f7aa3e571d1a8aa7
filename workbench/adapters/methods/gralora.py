"""GraLoRA (Jung et al. 2025, arXiv:2505.20355): a LoRA of its own for each block of a weight."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError


class Gralora(Method):
    """k × k blocks of ΔW, each of rank r / k: as many parameters as LoRA of rank r."""

    name = "gralora"
    label = "GraLoRA"
    help = "Take it at high ranks (64 and up), where LoRA gains no more: rank k times higher for LoRA's parameters."
    peft_type = "GRALORA"
    config_class = "GraloraConfig"
    prefix = "gralora_"
    reads = PLACES | {"r"}
    options = MappingProxyType(
        {
            "alpha": Option(32, "Scaling: ΔW is multiplied by alpha / (r + hybrid_r).", least=1, most=65536),
            "gralora_dropout": Option(0.0, "Dropout probability on the adapter's inputs.", least=0.0, most=0.99),
            "gralora_k": Option(2, "Blocks along each side of a weight; must divide r.", least=1, most=64),
            "hybrid_r": Option(0, "Rank of a LoRA of the whole weight beside the blocks.", least=0, most=8192),
        }
    )
    layers = frozenset({"linear", "conv1d"})
    float32 = ("gralora_",)
    excludes = False

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        blocks = self.value(settings, "gralora_k")
        sizes = {"r": r, "its inputs": layer.in_features, "its outputs": layer.out_features}
        for what, size in sizes.items():
            if size % blocks:
                raise WorkbenchError(
                    f"GraLoRA does not fit {layer.name}: gralora_k = {blocks} does not divide {what}, {size}.",
                    "Choose another gralora_k in adapter.options, or another rank.",
                    kind="adapter_target",
                )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        options = self.chosen(dict(settings.options))
        blocks, whole = options["gralora_k"], options["hybrid_r"]
        found = [
            AdapterTensor("gralora_A", (blocks, layer.in_features // blocks, r), is_float32=True),
            AdapterTensor("gralora_B", (blocks, r, layer.out_features // blocks), is_float32=True),
        ]
        if whole:
            found.append(AdapterTensor("gralora_A_general.weight", (whole, layer.in_features), is_float32=True))
            found.append(AdapterTensor("gralora_B_general.weight", (layer.out_features, whole), is_float32=True))
        return tuple(found)


METHOD = Gralora()
