"""Replaces an optimizer that this machine cannot run."""

from importlib import import_module

_OF_BITSANDBYTES = (
    "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit",
    "lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit",
    "ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit",
)  # fmt: skip
_FALLBACK = "adamw_torch_fused"


def optimizer_here(requested: str) -> tuple[str, str]:
    """The optimizer to use on this machine for ``training.optim``, and a notice; empty if it works as requested.

    Without a GPU there is no memory to page state out of; bitsandbytes then leaves it in memory.
    """
    if requested not in _OF_BITSANDBYTES:
        return requested, ""
    try:
        import_module("bitsandbytes.optim")
    except Exception as error:
        return _FALLBACK, (
            f"bitsandbytes is not usable here ({type(error).__name__}), so the optimizer is "
            f"{_FALLBACK} instead of {requested}: 8 bytes of state per trained parameter instead of "
            "2."
        )
    import torch

    if requested.startswith("paged_") and not torch.cuda.is_available():
        return requested, f"{requested} does not page without a GPU: its state stays in memory."
    return requested, ""
