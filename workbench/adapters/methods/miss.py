"""MiSS (Kang and Yin 2024, arXiv:2409.15371): one matrix a layer, repeated over shards of the input."""

from types import MappingProxyType

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, QUANTIZED, Method
from workbench.adapters.option import Option
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError


class Miss(Method):
    """ΔW repeats one trained r × out matrix, which starts at zero."""

    name = "miss"
    label = "MiSS"
    help = (
        "Take it for faster learning at LoRA's memory: one matrix a layer, at r 64 among the best of PEFT's comparison."
    )
    peft_type = "MISS"
    config_class = "MissConfig"
    prefix = "miss_"
    reads = PLACES | {"r"}
    options = MappingProxyType({
        "miss_dropout": Option(0.0, "Dropout probability on the adapter's inputs.", least=0.0, most=0.99),
        "init_weights": Option(True, "true: as in the paper. bat: learns with the weights. mini: fewer parameters.",
                               choices=(True, False, "bat", "mini")),
        "mini_r": Option(1, "Used with mini only: columns of the matrix.", least=1, most=8192),
    })  # fmt: skip
    quantized = QUANTIZED
    float32 = ("miss_",)

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        super().check_layer(layer, r, settings)
        options = self.chosen(dict(settings.options))
        problem = ""
        if r > layer.in_features:
            problem = f"has {layer.in_features} inputs, fewer than r = {r}"
        elif options["init_weights"] == "bat" and (layer.in_features % r or layer.out_features % r):
            problem = f"is {layer.out_features} × {layer.in_features}, which r = {r} does not divide (init_weights bat)"
        elif options["init_weights"] == "mini" and layer.out_features % options["mini_r"]:
            problem = f"has {layer.out_features} outputs, which mini_r = {options['mini_r']} does not divide"
        if problem:
            raise WorkbenchError(
                f"MiSS does not fit {layer.name}, which {problem}.",
                "Choose another rank or leave this layer out.",
                kind="adapter_target",
            )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        options = self.chosen(dict(settings.options))
        shape: tuple[int, ...] = (r, layer.out_features)
        if options["init_weights"] == "bat":
            shape = (layer.out_features // r, r, r)
        elif options["init_weights"] == "mini":
            shape = (r, options["mini_r"])
        return (AdapterTensor("miss_block", shape, is_float32=True),)


METHOD = Miss()
