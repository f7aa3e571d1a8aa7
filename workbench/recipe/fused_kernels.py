"""Checks whether the fused kernels that a recipe asks for (Liger's, or the Hugging Face hub's) are available."""

from importlib.util import find_spec
from typing import Literal

from workbench.errors import WorkbenchError
from workbench.machine.hub import is_offline

Fused = Literal["liger", "hub"]
"""The sources of kernels, as ``training.kernels`` names them."""

PACKAGES: dict[Fused, tuple[str, str]] = {"liger": ("liger-kernel", "liger_kernel"), "hub": ("kernels", "kernels")}
"""The package of each source: its name for ``pip`` and its name for ``import``."""


def is_installed(kernels: Fused) -> bool:
    """Whether the source's package is installed. Imports nothing."""
    return find_spec(PACKAGES[kernels][1]) is not None


def check_kernels(kernels: Fused | Literal["none"]) -> None:
    """Refuse kernels that this machine cannot load, as far as that is known without importing their libraries.

    Raises:
        WorkbenchError: the package is not installed, or hub kernels are requested and HF_HUB_OFFLINE is set.
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
