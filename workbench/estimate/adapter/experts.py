"""Resolves LoRA targets in mixtures of experts, whose weights transformers 5 stores as one parameter per layer.

Adapters name the experts as transformers 4 did (``w1``, ``gate_proj`` …). PEFT turns such names into parameters, as
``peft.utils.transformers_weight_conversion._convert_peft_config_moe`` does; so do these functions.
"""

import re
from collections.abc import Callable, Iterable

from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError

# Old name → the parameter it is now a part of.
_PARAMETERS = {
    "mixtral": {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen2_moe": {
        "gate": "gate.weight",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
        "down_proj": "down_proj",
    },
}
# Parameters that hold two old weights one above the other: they get twice the rank, or nothing.
_FUSED = {"mixtral": {"gate_up_proj": ("w1", "w3")}, "qwen2_moe": {"gate_up_proj": ("gate_proj", "up_proj")}}


def rename_expert_targets(
    family: str,
    names: frozenset[str],
    parameters: frozenset[str],
    ranks: dict[str, int],
    settings: AdapterSettings,
) -> tuple[frozenset[str], frozenset[str], dict[str, int]]:
    """Module names, parameter names and rank patterns with the old names of experts replaced.

    Raises:
        WorkbenchError: one half of a fused weight is targeted without the other.
    """
    mapping = _PARAMETERS[family]
    if settings.is_all_linear:
        # In transformers 4 experts and router were linear layers, so all-linear means them too.
        names = frozenset(name.rpartition(".")[2] for name in names) | mapping.keys()
    old_names = {target: _old_name(mapping, target) for target in names}
    found = {old for old in old_names.values() if old is not None}
    for fused, parts in _FUSED[family].items():
        present = [part for part in parts if part in found]
        missing = [part for part in parts if part not in found]
        if present and missing:
            raise WorkbenchError(
                f"{', '.join(present)} cannot be adapted without {', '.join(missing)}: "
                f"this model stores them as one weight, {fused}.",
                f"Add {', '.join(missing)} to adapter.target_modules, or remove {', '.join(present)}.",
                kind="adapter_experts",
            )
        if present:
            ranks = {**ranks, rf".*\.{re.escape(fused)}": settings.r * len(parts)}
    rest = frozenset(target for target, old in old_names.items() if old is None)
    return rest, parameters | {mapping[old] for old in found}, ranks


def leaf_names(
    family: str, matches: Callable[[str], bool], module_names: Iterable[str], parameter_names: list[str]
) -> frozenset[str] | None:
    """What a regular expression over old names targets, as last parts of names; None if nothing.

    Real modules and parameters are matched as they are; the experts that are no modules any more are tried under the
    names they had, at the place of the parameter that holds them now.
    """
    leaves = {key.rpartition(".")[2] for key in (*module_names, *parameter_names) if matches(key)}
    for old, new in _PARAMETERS[family].items():
        holders = (name.rpartition(".")[0] for name in parameter_names if name.rpartition(".")[2] == new)
        if old not in leaves and any(matches(f"{holder}.{old}") for holder in holders):
            leaves.add(old)
    return frozenset(leaves) or None


def _old_name(mapping: dict[str, str], target: str) -> str | None:
    return next((old for old in mapping if target == old or target.endswith(f".{old}")), None)
