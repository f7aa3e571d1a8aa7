"""Checks whether the experiment trackers that a recipe logs to are installed."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Literal

from workbench.errors import WorkbenchError

Reporter = Literal[
    "tensorboard",
    "wandb",
    "trackio",
    "mlflow",
    "swanlab",
    "comet_ml",
    "clearml",
    "neptune",
    "dvclive",
    "codecarbon",
]
REPORTERS: dict[Reporter, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "comet_ml": ("comet_ml",),
    "clearml": ("clearml",),
    "neptune": ("neptune",),
    "dvclive": ("dvclive",),
    "codecarbon": ("codecarbon",),
}
"""The trackers by transformers' name in ``training.report_to``, each with its packages, any one of which is enough."""

PROJECT = "loraworkbench"
"""The project that runs are logged to, unless the tracker's own variable is set, such as WANDB_PROJECT."""


def is_installed(reporter: Reporter) -> bool:
    """Whether one of the tracker's packages is installed. Imports nothing."""
    return any(find_spec(package) is not None for package in REPORTERS[reporter])


def check_reporters(reporters: Iterable[Reporter]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        WorkbenchError: some are not installed; the error names them.
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
