"""The base class of an adapter method: what the form, the estimate, the engine and the exports ask of it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.option import Option, Refusal
from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.recipe.sections.adapter import AdapterSection

LAYERS = frozenset({"layers_to_transform", "layers_pattern"})
"""Keys that choose some layers of the model."""

PLACES = frozenset({"target_modules", "modules_to_save"}) | LAYERS
"""Keys of the adapter section that say where the adapter goes; nearly every method reads them."""

QUANTIZED = frozenset({"nf4", "fp4", "int8"})
"""The quantizations of a base that bitsandbytes makes."""

PACKED = "packed"
"""A base whose files quantize it in another format, such as GPTQ."""


class Method:
    """An adapter method of PEFT.

    A subclass sets the attributes and overrides :meth:`tensors`; the rest where the method differs.

    Attributes:
        name: value of ``adapter.method``.
        label: its name in texts.
        help: when to take it, in one sentence.
        peft_type: ``peft_type`` in ``adapter_config.json``.
        config_class: name of its configuration in ``peft``.
        prefix: how the names of its parameters begin.
        reads: keys of the adapter section that it reads, besides ``method`` and ``options``.
        options: its own settings.
        layers: kinds of layers that it adapts.
        quantized: quantizations of the base that it can be trained on.
        float32: parts of the names of parameters that are trained in float32 on a 16-bit base.
        builds_weight: it builds ΔW, or the changed weight, and multiplies tokens by it.
        shapes_follow_rank: every tensor's size is a multiple of the rank, so that one traced step serves all ranks.
        trace_refusal: why its step cannot be traced and is priced by formula; empty if it can be traced.
        excludes: its configuration has ``exclude_modules``, which models with frozen parts need.
        trains_rows: its configuration has ``trainable_token_indices``, which added token rows need.
        adapts_parameters: it adapts weights that are no layers of their own, such as fused experts.
        merge_refusal: why it cannot be merged into the base's weights; empty if it can.
        scales: adapters can be scaled and summed.
        allocates_ranks: its ranks change during a run, which PEFT does after each optimizer step.
        kept_copies: copies of the trained tensors that it keeps during a run, beside the optimizer's state.
        continue_refusal: why a run cannot start from an adapter that exists; empty if it can.
        refuses_mamba: PEFT refuses layers of Mamba whose weights are used without calling the layer.
        serves: servers that load it beside the base.
    """

    name: str
    label: str
    help: str
    peft_type: str
    config_class: str
    prefix: str
    reads: frozenset[str] = PLACES
    options: Mapping[str, Option] = MappingProxyType({})
    layers: frozenset[str] = frozenset({"linear"})
    quantized: frozenset[str] = frozenset()
    float32: tuple[str, ...] = ()
    builds_weight: bool = False
    shapes_follow_rank: bool = False
    trace_refusal: str = ""
    excludes: bool = True
    trains_rows: bool = False
    adapts_parameters: bool = False
    merge_refusal: str = ""
    scales: bool = False
    allocates_ranks: bool = False
    kept_copies: int = 0
    continue_refusal: str = ""
    refuses_mamba: bool = False
    serves: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        if cls.excludes:
            cls.reads = cls.reads | {"exclude_modules"}

    # -- the recipe and PEFT's configuration -----------------------------------------------------------------------

    def arguments(self, adapter: "AdapterSection") -> dict[str, Any]:
        """The keyword arguments of PEFT's configuration, besides those that depend on the model."""
        return {name: getattr(adapter, name) for name in sorted(self.reads)} | self.chosen(adapter.options)

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all options: the given ones, and the defaults of the others."""
        return {name: options.get(name, option.default) for name, option in self.options.items()}

    def value(self, settings: AdapterSettings, name: str) -> Any:
        """The value of an option."""
        return dict(settings.options).get(name, self.options[name].default)

    def for_trace(self, rank: int) -> dict[str, Any]:
        """What a traced step changes in the configuration: where shapes follow the rank, a rank that is a prime."""
        return {"r": rank} if self.shapes_follow_rank else {}

    def section(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keys and values of the adapter section that make this ``adapter_config.json``.

        Returns:
            The section, and what of the configuration has no counterpart in it, by PEFT's names.
        """
        options = {
            name: config[name]
            for name, option in self.options.items()
            if name in config and config[name] != option.default and option.accepts(config[name])
        }
        section = {name: config[name] for name in sorted(self.reads) if config.get(name) is not None}
        refused = {name: config[name] for name in self.options if name in config and name not in options
                   and config[name] != self.options[name].default}  # fmt: skip
        return ({"method": self.name, **section, **({"options": options} if options else {})}), refused

    def size_words(self, options: Mapping[str, Any]) -> str:
        """What stands in place of the rank for a method that reads none, such as ``block 32``."""
        return ""

    def is_float32(self, parameter: str) -> bool:
        """Whether a trained parameter of this name stays in float32 on a 16-bit base."""
        return any(part in parameter for part in self.float32)

    # -- what PEFT refuses -----------------------------------------------------------------------------------------

    def check(self, settings: AdapterSettings) -> None:
        """Check what PEFT's configuration refuses for any model.

        Raises:
            WorkbenchError: two settings exclude each other.
        """

    def check_layer(self, layer: Layer, r: int, settings: AdapterSettings) -> None:
        """Check that PEFT adapts this layer.

        Raises:
            WorkbenchError: it does not; with the reason.
        """
        if self.refuses_mamba and layer.model_type in _MAMBA_TYPES and layer.leaf in _MAMBA_REFUSED:
            raise WorkbenchError(
                f"{self.label} does not work on {layer.name}: Mamba uses the weights of {layer.leaf} without calling "
                "the layer.",
                "List other targets, such as [in_proj, x_proj], instead of all-linear.",
                kind="adapter_target",
            )
        if layer.kind not in self.layers:
            kinds = " and ".join(_KINDS[kind] for kind in _KINDS if kind in self.layers)
            raise WorkbenchError(
                f"{self.label} does not work on {layer.name}, which is a {layer.class_name}: it adapts {kinds} layers.",
                "Leave this layer out of adapter.target_modules, or set adapter.method to lora.",
                kind="adapter_target",
            )

    def refusal_on(self, adapter: "AdapterSection | AdapterSettings", quantization: str) -> Refusal | None:
        """Why this adapter cannot be trained on a base quantized like this; None if it can."""
        if quantization == "none" or quantization in self.quantized:
            return None
        others = f", or {' or '.join(sorted(self.quantized))}" if self.quantized else ""
        return Refusal(
            "adapter.method",
            f"PEFT has no layers of {self.name} for a base in {quantization}",
            f"set quantization.method to none{others}, or adapter.method to lora",
        )

    def refusal(self, adapter: "AdapterSection") -> Refusal | None:
        """Which settings of an adapter exclude each other on any base; None if none do."""
        return None

    def steps_refusal(self, adapter: "AdapterSection", steps: int) -> Refusal | None:
        """Why this adapter cannot be trained for this number of optimizer steps; None if it can."""
        return None

    def moves_base(self, config: Mapping[str, object]) -> bool:
        """Whether PEFT changes the base's own weights when it loads an adapter with this ``adapter_config.json``."""
        return config.get("bias", "none") != "none"

    def trains_base(self, adapter: "AdapterSection") -> bool:
        """Whether training this adapter changes the base's own weights."""
        return self.moves_base(self.arguments(adapter))

    # -- the tensors -----------------------------------------------------------------------------------------------

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        """The tensors that the adapter adds to a layer, in the order of PEFT."""
        raise NotImplementedError

    def shared(self, layers: Sequence[Layer], settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        """The tensors that all layers of an adapter share; their names are full ones below ``base_model.``."""
        return ()

    def multiplied(self, layer: Layer, r: int, settings: AdapterSettings) -> int:
        """The adapter's elements that a token is multiplied by in this layer."""
        if self.builds_weight:
            return layer.in_features * layer.out_features
        return sum(tensor.size for tensor in self.tensors(layer, r, settings) if tensor.is_trained)


# Layers that PEFT refuses for these types (``_check_lora_target_modules_mamba``).
_MAMBA_TYPES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
_MAMBA_REFUSED = {"out_proj", "conv1d"}
_KINDS = {"linear": "linear", "conv1d": "Conv1D", "embedding": "embedding", "convolution": "convolution"}
