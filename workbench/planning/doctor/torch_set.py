"""Which constraint set, and so which build of PyTorch, fits a GPU driver."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.planning.doctor.check import Check


@dataclass(frozen=True)
class ConstraintSet:
    """A set of versions in ``constraints/``, for one CUDA version.

    Attributes:
        name: of its file, without the suffix.
        index: PyTorch's index with its builds.
        driver: the oldest driver on which it runs, as major and minor version.
        oldest, newest: compute capabilities that its torch has kernels for.
    """

    name: str
    cuda: str
    index: str
    driver: tuple[int, int]
    oldest: tuple[int, int]
    newest: tuple[int, int]

    @property
    def command(self) -> str:
        """How to replace torch by its build."""
        return (
            f"pip install torch=={TORCH}+{self.index} --extra-index-url https://download.pytorch.org/whl/{self.index}"
        )


TORCH = "2.13.0"
"""The version of torch in all sets."""

_NAME = "torch build"

# PyTorch builds of one CUDA major version run on all drivers of that major version or a later one, so those from
# NVIDIA's table of minimum drivers count: 525.60 for CUDA 12, 580.65 for 13. Those before 570 have no Blackwell GPUs.
# The builds for 13 have no kernels before Turing, those for 12.6 none after Hopper; those for 12.8 ended with torch
# 2.11 and are called 12.9 since.
SETS = (
    ConstraintSet("cuda-13", "13.0", "cu130", (580, 65), (7, 5), (12, 1)),
    ConstraintSet("cuda-12.8", "12.9", "cu129", (570, 26), (7, 0), (12, 1)),
    ConstraintSet("cuda-12.6", "12.6", "cu126", (525, 60), (5, 0), (9, 0)),
)


def set_for(driver: str, capabilities: Sequence[tuple[int, int]] = ()) -> ConstraintSet | None:
    """The newest set that runs on a driver and has kernels for all GPUs; None if no set does.

    Args:
        driver: its version as NVML gives it, such as ``570.86.15``.
        capabilities: compute capabilities of the GPUs; none if they are unknown.
    """
    version = _version(driver)
    if version is None:
        return None
    return next(
        (
            one
            for one in SETS
            if version >= one.driver and all(one.oldest <= capability <= one.newest for capability in capabilities)
        ),
        None,
    )


def torch_build(driver: str, capabilities: Sequence[tuple[int, int]], built_for: str | None) -> Iterator[Check]:
    """Say which set fits the driver; nothing without a driver.

    Args:
        built_for: the CUDA version of the installed torch; None for a build without CUDA.
    """
    if not driver:
        return
    chosen = set_for(driver, capabilities)
    if chosen is None:
        gpus = f" and {', '.join(f'sm_{major}{minor}' for major, minor in capabilities)}" if capabilities else ""
        yield Check(
            _NAME,
            "problem",
            f"no constraint set fits driver {driver}{gpus}",
            "torch cannot use the GPU.",
            f"Install driver {SETS[-1].driver[0]} or newer; for Blackwell GPUs {SETS[1].driver[0]} or newer.",
        )
        return
    found = f"driver {driver} takes constraints/{chosen.name}.txt (torch for CUDA {chosen.cuda})"
    built, wanted = _version(built_for or ""), _version(chosen.cuda)
    if built is None or wanted is None:
        yield Check(_NAME, "warning", found, "This torch is a CPU build.", f"`{chosen.command}`")
    elif built[0] > wanted[0]:
        lacking = f"This torch is for CUDA {built_for}, which the driver cannot run."
        yield Check(_NAME, "problem", found, lacking, f"Update the driver, or `{chosen.command}`")
    else:
        yield Check(_NAME, "ok", f"{found}; this one is for CUDA {built_for}")


def _version(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    try:
        return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0
    except ValueError:
        return None
