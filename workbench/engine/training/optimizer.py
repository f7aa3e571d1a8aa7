"""The optimizer that this machine can run, and what is said where it is not the one asked for."""

from importlib import import_module

_OF_BITSANDBYTES = ("adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit")
_ALWAYS_THERE = "adamw_torch_fused"


def optimizer_here(wanted: str) -> tuple[str, str]:
    """``training.optim`` for this machine, and a notice; the notice is empty where it is what was wanted.

    A machine without a GPU has nothing to page state out of; bitsandbytes then keeps it in memory.
    """
    if wanted not in _OF_BITSANDBYTES:
        return wanted, ""
    try:
        import_module("bitsandbytes.optim")
    except Exception as error:
        return _ALWAYS_THERE, (
            f"bitsandbytes is not usable here ({type(error).__name__}), so the optimizer is "
            f"{_ALWAYS_THERE} instead of {wanted}: 8 bytes of state per trained parameter instead of "
            "2."
        )
    import torch

    if wanted.startswith("paged_") and not torch.cuda.is_available():
        return wanted, f"{wanted} does not page without a GPU: its state stays in memory."
    return wanted, ""
