"""Replaces an optimizer that this machine cannot run."""

from importlib import import_module

from workbench.recipe.optimizers import DEFAULT, OPTIMIZERS, of_bitsandbytes


def optimizer_here(requested: str) -> tuple[str, str]:
    """The optimizer to use on this machine for ``training.optim``, and a notice; empty if it works as requested.

    Without a GPU there is no memory to page state out of; bitsandbytes then leaves it in memory.
    """
    if not of_bitsandbytes(requested):
        return requested, ""
    try:
        import_module("bitsandbytes.optim")
    except Exception as error:
        return DEFAULT, (
            f"bitsandbytes is not usable here ({type(error).__name__}), so the optimizer is "
            f"{DEFAULT} instead of {requested}: 8 bytes of state per trained parameter instead of "
            "2."
        )
    import torch

    if OPTIMIZERS[requested].is_paged and not torch.cuda.is_available():
        return requested, f"{requested} does not page without a GPU: its state stays in memory."
    return requested, ""
