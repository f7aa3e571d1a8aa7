"""Which layers get no adapter although its targets name them, and why, in sentences."""

from functools import lru_cache

from workbench.adapters.settings import AdapterSettings
from workbench.estimate.adapter.sites import sites
from workbench.estimate.adapter.targets import Targets
from workbench.models.language_part import ROUTER
from workbench.models.skeleton import Skeleton

LeftOut = tuple[tuple[str, int], ...]
"""How many matching layers get no adapter, by the part that they are in: ``vision``, ``router`` …"""


def in_frozen_parts(skeleton: Skeleton, targets: Targets) -> LeftOut:
    """Matching layers in parts that get no adapter."""
    counts: dict[str, int] = {}
    for part in skeleton.frozen_parts if targets.left_out else ():
        count = sum(name == part.name or name.startswith(f"{part.name}.") for name in targets.left_out)
        if count:
            counts[part.kind] = counts.get(part.kind, 0) + count
    return tuple(counts.items())


def fused_experts_left_out(skeleton: Skeleton, targets: Targets, settings: AdapterSettings) -> int:
    """Parameters in experts that are stored as one weight, where ``all-linear`` does not reach them; else 0."""
    if not settings.is_all_linear or targets.parameters:
        return 0
    return _in_fused_experts(skeleton)


@lru_cache(maxsize=64)
def _in_fused_experts(skeleton: Skeleton) -> int:
    experts = (site for site in sites(skeleton) if "Expert" in site.module.class_name)
    return sum(tensor.size for site in experts for tensor in site.parameters if len(tensor.shape) == 3)


def left_out_text(left_out: LeftOut, experts: int, parameters: int) -> str:
    """The sentences; empty if nothing is left out.

    Args:
        experts: parameters of experts without an adapter, of the model's ``parameters``.
    """
    sentences = []
    if left_out:
        unreached = ", ".join(f"{kind} {count}" for kind, count in left_out if kind != ROUTER)
        routers = ", ".join(f"{kind} {count}" for kind, count in left_out if kind == ROUTER)
        reasons = (
            f"{unreached} (training on text does not reach them)" if unreached else "",
            f"{routers} (PEFT cannot adapt a layer that returns a pair)" if routers else "",
        )
        sentences.append(f"Layers without an adapter: {', '.join(filter(None, reasons))}.")
    if experts:
        sentences.append(
            f"The experts get no adapter ({experts / parameters:.0%} of the weights): the model stores those of a "
            "layer as one weight, and all-linear takes linear layers."
        )
    return " ".join(sentences)
