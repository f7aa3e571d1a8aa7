"""LoRA (Hu et al. 2021, arXiv:2106.09685), with rsLoRA, DoRA and PEFT's initializations."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PACKED, PLACES, QUANTIZED, Method
from workbench.adapters.option import Refusal
from workbench.adapters.settings import AdapterSettings
from workbench.adapters.starts import check_start, options_of_starts, start_of, start_refusal
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.recipe.sections.adapter import AdapterSection

MAGNITUDE = "lora_magnitude_vector"
# Initializations that move part of the base's weights into the adapter.
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_FROM_BASE = ("pissa", "olora")


class Lora(Method):
    """ΔW = B·A: two matrices a layer."""

    name = "lora"
    label = "LoRA"
    help = "Take it first: it merges, sums, quantizes and is served everywhere."
    peft_type = "LORA"
    config_class = "LoraConfig"
    prefix = "lora_"
    reads = PLACES | {
        "r",
        "lora_alpha",
        "lora_dropout",
        "bias",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
        "rank_pattern",
        "alpha_pattern",
    }
    options = MappingProxyType(options_of_starts())
    layers = frozenset({"linear", "conv1d", "embedding", "convolution"})
    quantized = QUANTIZED | {PACKED}
    # A training step changes DoRA's magnitudes by less than bfloat16 can represent.
    float32 = (MAGNITUDE,)
    shapes_follow_rank = True
    trains_rows = True
    refuses_mamba = True
    adapts_parameters = True
    scales = True
    serves = ("vLLM", "TGI")

    def arguments(self, adapter: "AdapterSection") -> dict[str, Any]:
        arguments = super().arguments(adapter)
        for name in self.options:
            del arguments[name]
        if start_of(adapter.init_lora_weights) is not None:
            # The engine makes these starts; the adapter needs none when it is loaded.
            arguments["init_lora_weights"] = True
        return arguments

    def section(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        section, refused = super().section(config)
        for name, value in _broken_numbers(section).items():
            # EVA and conversions of other starts scale by numbers that the recipe, in whole ones, does not have.
            refused[name] = value
            del section[name]
        if (start := start_of(section.get("init_lora_weights", True))) is not None:
            values = config.get(f"{start.name}_config") or {}
            options = {name: value for name, value in values.items() if name in start.options
                       and value != start.options[name].default and start.options[name].accepts(value)}  # fmt: skip
            section |= {"options": options} if options else {}
        return section, refused

    def refusal(self, adapter: "AdapterSection") -> Refusal | None:
        return start_refusal(adapter)

    def for_trace(self, rank: int) -> dict[str, Any]:
        return super().for_trace(rank) | {"init_lora_weights": True}

    def refusal_on(self, adapter: "AdapterSection | AdapterSettings", quantization: str) -> Refusal | None:
        start = adapter.init_lora_weights
        own = start_of(start)
        if own is not None and quantization not in own.bases:
            base = "none" if "none" in own.bases else "nf4"
            return Refusal(
                "adapter.init_lora_weights",
                f"{own.name} needs {own.needs}",
                f"set quantization.method to {base}, or init_lora_weights to true",
            )
        if quantization != "none" and isinstance(start, str) and start.startswith(_FROM_BASE):
            return Refusal(
                "adapter.init_lora_weights",
                f"{start} needs an unquantized base",
                "set quantization.method to none, or init_lora_weights to true",
            )
        return super().refusal_on(adapter, quantization)

    def moves_base(self, values: Mapping[str, object]) -> bool:
        start = str(values.get("init_lora_weights", "")).lower()
        return super().moves_base(values) or start.startswith(_MOVES_BASE)

    def trains_base(self, adapter: "AdapterSection") -> bool:
        start = start_of(adapter.init_lora_weights)
        return super().trains_base(adapter) or (start is not None and start.moves_base)

    def check(self, settings: AdapterSettings) -> None:
        if settings.lora_bias and settings.use_dora:
            raise WorkbenchError(
                "DoRA and lora_bias cannot be combined.", "Turn one of them off.", kind="adapter_settings"
            )
        if settings.lora_bias and settings.init_lora_weights not in (True, False):
            raise WorkbenchError(
                f"lora_bias does not work with init_lora_weights: {settings.init_lora_weights}.",
                "Set adapter.init_lora_weights to true.",
                kind="adapter_settings",
            )

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        if layer.kind == "other":
            raise WorkbenchError(
                f"{layer.name} is a {layer.class_name}; LoRA supports linear, embedding and convolution layers.",
                "Target the layers inside it.",
                kind="adapter_target",
            )
        super().check_layer(layer, r, settings)
        if settings.trains_b_only and layer.kind in ("embedding", "convolution"):
            raise lora_fa_refusal(layer.name)
        if layer.kind == "embedding" and settings.lora_bias:
            raise WorkbenchError(
                f"lora_bias does not work on the embedding {layer.name}.", "Turn it off.", kind="adapter_target"
            )
        if layer.kind == "convolution" and r % layer.groups:
            raise WorkbenchError(
                f"{layer.name} is a convolution with {layer.groups} groups; r = {r} is not a multiple.",
                "Choose another rank or leave this layer out.",
                kind="adapter_target",
            )
        _check_start(layer, r, settings)

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        a_shape, b_shape = _shapes(layer, r)
        is_embedding = layer.kind == "embedding"
        found = [
            AdapterTensor(
                "lora_embedding_A" if is_embedding else "lora_A.weight", a_shape, is_trained=not settings.trains_b_only
            ),
            AdapterTensor("lora_embedding_B" if is_embedding else "lora_B.weight", b_shape),
        ]
        if settings.lora_bias:
            found.append(AdapterTensor("lora_B.bias", (b_shape[0],)))
        if settings.use_dora:
            is_convolution = layer.kind == "convolution"
            shape = (1, b_shape[0], *b_shape[2:]) if is_convolution else (b_shape[0],)
            found.append(AdapterTensor(MAGNITUDE, shape, is_float32=True))
        return tuple(found)

    def multiplied(self, layer: Layer, r: int, settings: AdapterSettings) -> int:
        a, b = self.tensors(layer, r, settings)[:2]
        # For an embedding, a token's row of A is looked up, not multiplied.
        return b.size + (0 if layer.kind == "embedding" else a.size)


def _broken_numbers(section: dict[str, Any]) -> dict[str, Any]:
    """The keys of alpha that are no whole numbers; whole ones that are written as 8.0 become so."""
    alpha, pattern = section.get("lora_alpha"), section.get("alpha_pattern")
    broken: dict[str, Any] = {}
    if isinstance(alpha, float):
        section["lora_alpha"] = int(alpha)
        broken |= {"lora_alpha": alpha} if alpha % 1 else {}
    if isinstance(pattern, dict) and any(isinstance(value, float) for value in pattern.values()):
        section["alpha_pattern"] = {name: int(value) for name, value in pattern.items()}
        broken |= {"alpha_pattern": pattern} if any(value % 1 for value in pattern.values()) else {}
    return broken


def lora_fa_refusal(name: str) -> WorkbenchError:
    """The error for a layer that LoRA-FA cannot train."""
    return WorkbenchError(
        f"LoRA-FA (training.optim: lora_fa) trains linear layers only, and {name} is none.",
        "Leave this layer out of adapter.target_modules, or set training.optim to adamw_torch_fused.",
        kind="adapter_target",
    )


def _check_start(layer: Layer, r: int, settings: AdapterSettings) -> None:
    start = settings.init_lora_weights
    if isinstance(start, bool) or start == "gaussian":
        return
    if (own := start_of(start)) is not None:
        check_start(layer, r, settings, own)
        return
    if layer.kind in ("embedding", "convolution"):
        raise WorkbenchError(
            f"init_lora_weights: {start} works on linear layers only, and {layer.name} is an {layer.class_name}.",
            "Set adapter.init_lora_weights to true, or leave this layer out.",
            kind="adapter_target",
        )
    if start == "orthogonal" and r % 2:
        raise WorkbenchError(
            f"init_lora_weights: orthogonal needs an even rank, and {layer.name} has r = {r}.",
            "Choose an even r.",
            kind="adapter_target",
        )


def _shapes(layer: Layer, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B, as ``peft.tuners.lora.layer`` creates them."""
    if layer.kind == "convolution":
        ones = (1,) * len(layer.kernel)
        return (r, layer.in_features, *layer.kernel), (layer.out_features, r // layer.groups, *ones)
    return (r, layer.in_features), (layer.out_features, r)


METHOD = Lora()
