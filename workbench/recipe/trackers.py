"""Where else a run may be told of: TensorBoard, Weights & Biases, trackio. Each is used where it is installed."""

from collections.abc import Iterable
from importlib.util import find_spec

from workbench.errors import WorkbenchError

REPORTERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
"""The name of each in a recipe, and the packages of which any will do."""

PROJECT = "loraworkbench"
"""Under which name the runs are kept there, unless WANDB_PROJECT or TRACKIO_PROJECT says otherwise."""


def is_installed(reporter: str) -> bool:
    """Whether one of its packages is there; nothing is imported."""
    return any(find_spec(package) is not None for package in REPORTERS[reporter])


def known_reporters(names: object) -> list[str]:
    """Those of another tool's ``report_to`` (a name, or a list of them) that a recipe has too."""
    listed = names if isinstance(names, list) else [names]
    return [name for name in listed if name in REPORTERS]


def check_reporters(reporters: Iterable[str]) -> None:
    """Whether all that are to be told are installed.

    Raises:
        WorkbenchError: some are not.
    """
    missing = [name for name in reporters if not is_installed(name)]
    if missing:
        raise WorkbenchError(
            f"training.report_to contains {' and '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run `pip install {' '.join(missing)}` in the workbench's environment, then "
            "`loraworkbench engine restart`, or remove it.",
            kind="reporter_missing",
        )
