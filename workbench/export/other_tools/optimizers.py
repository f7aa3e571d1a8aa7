"""Other tools' names of optimizers, and ours."""

from workbench.recipe.optimizers import LORA_FA, OPTIMIZERS, lacking_package, usable

_THEIRS = frozenset(usable()) - {LORA_FA}
# The same optimizer under another name.
_SAME = {
    "adamw": "adamw_torch",
    "adamw_hf": "adamw_torch",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "lion": "lion_32bit",
    "paged_lion": "paged_lion_32bit",
    "paged_ademamix": "paged_ademamix_32bit",
}
_BY_BITS = {"lion": ("lion_8bit", "lion_32bit"), "ademamix": ("ademamix_8bit", "ademamix")}
_FAMILIES = {"adafactor": "adafactor", "came": "adafactor", "lomo": "adafactor", "rmsprop": "rmsprop",
             "adagrad": "adagrad", "sgd": "sgd"}  # fmt: skip
_SMALL = ("8bit", "4bit", "fp8")


def our_optimizer(name: str) -> tuple[str, bool]:
    """The optimizer of ours for another tool's name, and whether it is the same one; else it is the nearest.

    One whose package is not installed is replaced too: such a recipe could not start.
    """
    folded = name.strip().lower()
    same = _SAME.get(folded, folded)
    if same in _THEIRS and lacking_package(same) is None:
        return same, True
    if same in OPTIMIZERS and OPTIMIZERS[same].instead:
        return OPTIMIZERS[same].instead, False
    is_small = any(mark in folded for mark in _SMALL)
    for family, (small, large) in _BY_BITS.items():
        if family in folded:
            return small if is_small else large, False
    if family := next((ours for theirs, ours in _FAMILIES.items() if theirs in folded), ""):
        return family, False
    if is_small:
        return "paged_adamw_8bit" if folded.startswith("paged") else "adamw_8bit", False
    return "adamw_torch_fused", False
