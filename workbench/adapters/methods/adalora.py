"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): LoRA in the form of an SVD, whose ranks move to where they count."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.adapters.layer import AdapterTensor, Layer
from workbench.adapters.method import PLACES, QUANTIZED, Method
from workbench.adapters.option import Option, Refusal
from workbench.adapters.settings import AdapterSettings

if TYPE_CHECKING:
    from workbench.recipe.sections.adapter import AdapterSection

_TARGET = 8


class AdaLora(Method):
    """ΔW = B·diag(E)·A of rank ``r``, whose least important singular values are set to zero during the run."""

    name = "adalora"
    label = "AdaLoRA"
    help = "Take it where layers need different ranks: starts at r and leaves target_r a layer on average. Slower."
    peft_type = "ADALORA"
    config_class = "AdaLoraConfig"
    prefix = "lora_"
    reads = PLACES | {"r", "lora_alpha", "lora_dropout"}
    options = MappingProxyType({
        "target_r": Option(_TARGET, "Mean rank of a layer at the end. Until set: 8, or half of r where r is 8 or less.",
                           least=1, most=8191),
        "tinit": Option(0, "Steps before ranks are reduced.", least=0),
        "tfinal": Option(0, "Last steps, in which the ranks stay as they are.", least=0),
        "deltaT": Option(1, "Steps from one reduction to the next.", least=1),
        "beta1": Option(0.85, "Smoothing of the importance of each weight.", least=0.01, most=0.99),
        "beta2": Option(0.85, "Smoothing of the uncertainty of that importance.", least=0.01, most=0.99),
        "orth_reg_weight": Option(0.5, "Weight of the term that keeps A and B orthogonal; not part of the loss curve.",
                                  least=0.0, most=1000.0),
    })  # fmt: skip
    layers = frozenset({"linear", "conv1d"})
    quantized = QUANTIZED
    float32 = ("lora_",)
    refuses_mamba = True
    allocates_ranks = True
    kept_copies = 3
    continue_refusal = "a run of AdaLoRA distributes its ranks from its own first step"

    def arguments(self, adapter: "AdapterSection") -> dict[str, Any]:
        arguments = super().arguments(adapter)
        rank = arguments["init_r"] = arguments.pop("r")
        arguments["target_r"] = _target(rank, adapter.options)
        # PEFT needs a number of steps; the trainer sets the real one when it knows it.
        arguments["total_step"] = arguments["tinit"] + arguments["tfinal"] + 1
        return arguments

    def section(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        rank = config.get("init_r", config.get("r"))
        return super().section({**config, "r": rank})

    def refusal(self, adapter: "AdapterSection") -> Refusal | None:
        if adapter.r < 2:
            return Refusal("adapter.r", "AdaLoRA reduces ranks, and 1 cannot be reduced", "set it to 2 or more")
        if (target := _target(adapter.r, adapter.options)) >= adapter.r:
            return Refusal(
                "adapter.options",
                f"target_r {target} of AdaLoRA is the rank at the end, which must be less than adapter.r {adapter.r}",
                f"set target_r to {adapter.r // 2}, or adapter.r to {2 * target}",
            )
        return None

    def steps_refusal(self, adapter: "AdapterSection", steps: int) -> Refusal | None:
        options = self.chosen(adapter.options)
        first, last = options["tinit"], options["tfinal"]
        if first + last < steps:
            return None
        return Refusal(
            "adapter.options",
            f"tinit {first} and tfinal {last} of AdaLoRA leave none of the run's {steps} steps to reduce ranks in",
            "lower tinit or tfinal, or train for more steps",
        )

    def tensors(self, layer: Layer, r: int, settings: AdapterSettings) -> tuple[AdapterTensor, ...]:
        return (
            AdapterTensor("lora_A", (r, layer.in_features), is_float32=True),
            AdapterTensor("lora_B", (layer.out_features, r), is_float32=True),
            AdapterTensor("lora_E", (r, 1), is_float32=True),
            AdapterTensor("ranknum", (1,), is_trained=False, is_saved=False, is_parameter=True),
        )


def _target(rank: int, options: Mapping[str, Any]) -> int:
    default = _TARGET if rank > _TARGET else max(rank // 2, 1)
    return int(options.get("target_r", default))


METHOD = AdaLora()
