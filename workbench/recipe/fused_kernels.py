"""Whose fused kernels a run may compute with: Liger's, or those of the Hugging Face hub. Each where it is installed."""

from importlib.util import find_spec
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.machine.hub import is_offline

Fused = Literal["liger", "hub"]
"""Whose kernels, as ``training.kernels`` names them."""

PACKAGES: dict[Fused, tuple[str, str]] = {"liger": ("liger-kernel", "liger_kernel"), "hub": ("kernels", "kernels")}
"""The package of each: as ``pip`` knows it, and as Python imports it."""


def is_installed(kernels: Fused) -> bool:
    """Whether its package is there; nothing is imported."""
    return find_spec(PACKAGES[kernels][1]) is not None


def check_kernels(kernels: Fused | Literal["none"]) -> None:
    """Whether this machine has what a run would need, as far as that is known without its libraries.

    Raises:
        WorkbenchError: the package is not installed, or the hub may not be asked.
    """
    if kernels == "none":
        return
    package = PACKAGES[kernels][0]
    if not is_installed(kernels):
        raise WorkbenchError(
            f"training.kernels is {kernels}, and {package} is not installed.",
            f"Run `pip install {package}` in the workbench's environment, then `loraworkbench engine "
            "restart`. Without a GPU keep training.kernels: none.",
            kind="kernels",
        )
    if kernels == "hub" and is_offline():
        raise WorkbenchError(
            "training.kernels is hub, which downloads kernels, but HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE and `loraworkbench engine restart`, or set training.kernels to liger or none.",
            kind="kernels",
        )
