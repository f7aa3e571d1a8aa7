"""LoRA's starts that the engine makes before the first step: from the run's records, or from the quantization error.

PEFT makes the other starts itself when it attaches an adapter. These are made once, and kept in the run's folder: a
resumed run takes the kept one. The adapter's own configuration then names no start, since it needs none to be loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.adapters.layer import Layer
from workbench.adapters.option import Option, Refusal
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.adapters.settings import AdapterSettings
    from workbench.recipe.sections.adapter import AdapterSection


@dataclass(frozen=True)
class Start:
    """A start of A and B.

    Attributes:
        name: value of ``init_lora_weights``.
        label: its name in texts.
        help: when to take it, and what it costs, in one sentence.
        options: its settings among ``adapter.options``, by PEFT's names.
        reads_records: it computes some of the run's records.
        moves_base: it moves part of the base's weights into the adapter.
        bases: the quantizations of the base that it works on, and in words what it needs.
        layers: the kinds of layers that it works on.
    """

    name: str
    label: str
    help: str
    options: Mapping[str, Option]
    reads_records: bool
    moves_base: bool
    bases: frozenset[str]
    needs: str
    layers: frozenset[str] = frozenset({"linear", "conv1d"})


_ANY = frozenset({"none", "nf4", "fp4", "int8", "packed"})
STARTS: Mapping[str, Start] = {
    start.name: start
    for start in (
        Start(
            "eva",
            "EVA",
            "Take it where records differ from what the base knows: A from their activations, ranks where they count.",
            {"rho": Option(2.0, "Used with eva only: a layer's rank is at most rho · r; 1: all stay at r.",
                           least=1.0, most=16.0)},
            reads_records=True,
            moves_base=False,
            bases=_ANY,
            needs="",
        ),
        Start(
            "loftq",
            "LoftQ",
            "Take it with nf4 at low ranks: A and B make up for the error of quantization.",
            {},
            reads_records=False,
            moves_base=False,
            bases=frozenset({"nf4", "fp4"}),
            needs="a base that is quantized to 4 bits as it is loaded",
            layers=frozenset({"linear"}),
        ),
        Start(
            "corda",
            "CorDA",
            "Take it to learn fast (ipm) or to keep knowledge (kpm). Holds a square matrix of each layer's inputs.",
            {"corda_method": Option("ipm", "Used with corda only: ipm learns the records fast, kpm keeps what they are "
                                    "about.", choices=("ipm", "kpm"))},
            reads_records=True,
            moves_base=True,
            bases=frozenset({"none"}),
            needs="an unquantized base",
        ),
        Start(
            "lora_ga",
            "LoRA-GA",
            "Take it for runs of few steps: A and B from the weights' gradient, which it holds for a while.",
            {
                "direction": Option("ArB2r", "Used with lora_ga only: which singular vectors A and B get.",
                                    choices=("ArB2r", "A2rBr", "ArBr", "random")),
                "scale": Option("stable", "Used with lora_ga only: how B is scaled.",
                                choices=("stable", "weight_svd", "gd_scale", "unit")),
                "stable_gamma": Option(16, "Used with lora_ga and scale stable only.", least=1, most=4096),
            },
            reads_records=True,
            moves_base=True,
            bases=frozenset({"none"}),
            needs="an unquantized base",
        ),
    )
}  # fmt: skip


def start_of(value: bool | str) -> Start | None:
    """The start with this value of ``init_lora_weights``; None for one that PEFT makes."""
    return STARTS.get(value) if isinstance(value, str) else None


def keeps_start(adapter: "AdapterSection") -> bool:
    """Whether a run of this adapter keeps the weights that it starts from in its folder."""
    return bool(adapter.continue_from) or start_of(adapter.init_lora_weights) is not None


def options_of_starts() -> dict[str, Option]:
    """The settings of all starts."""
    return {name: option for start in STARTS.values() for name, option in start.options.items()}


def start_refusal(adapter: "AdapterSection") -> Refusal | None:
    """What of an adapter section its start excludes; None if nothing."""
    start = start_of(adapter.init_lora_weights)
    for name in adapter.options:
        owner = next((one for one in STARTS.values() if name in one.options), None)
        if owner is not None and owner is not start:
            return Refusal("adapter.options", f"{name} is used with init_lora_weights {owner.name} only", "remove it")
    if start is None:
        return None
    path = "adapter.init_lora_weights"
    if adapter.use_dora:
        return Refusal(path, f"{start.name} does not work with DoRA", "set use_dora to false, or it to true")
    if adapter.continue_from:
        return Refusal(
            "adapter.continue_from",
            f"{adapter.continue_from} has the first weights, which {start.name} would make",
            "leave it empty, or set init_lora_weights to true",
        )
    if start.name == "loftq" and adapter.scaling != 1:
        return Refusal(
            "adapter.lora_alpha",
            f"loftq makes up for the error of quantization only at scaling 1, and this is {adapter.scaling:g}",
            f"set lora_alpha to {adapter.r} and use_rslora to false",
        )
    if start.name == "loftq" and (adapter.rank_pattern or adapter.alpha_pattern):
        return Refusal(path, "loftq works with one rank for all layers", "remove rank_pattern and alpha_pattern")
    return None


def check_start(layer: Layer, r: int, settings: "AdapterSettings", start: Start) -> None:
    """Check that a start can be made for a layer.

    Raises:
        WorkbenchError: it cannot; with the reason.
    """
    if layer.kind not in start.layers:
        raise WorkbenchError(
            f"init_lora_weights: {start.name} does not work on {layer.name}, which is a {layer.class_name}.",
            "Set adapter.init_lora_weights to true, or leave this layer out.",
            kind="adapter_target",
        )
    smaller = min(layer.in_features, layer.out_features)
    options: dict[str, Any] = dict(settings.options)
    needed, of = r, smaller
    if start.name == "eva":
        needed, of = round(r * options.get("rho", start.options["rho"].default)), layer.in_features
    elif start.name == "lora_ga":
        needed = 2 * r
    if needed > of:
        raise WorkbenchError(
            f"init_lora_weights: {start.name} needs {needed} directions with r = {r}, and {layer.name} has {of}.",
            "Choose a smaller r" + (" or rho." if start.name == "eva" else "."),
            kind="adapter_target",
        )
