"""Checks, before a run, that the disk has space for what the run will write."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.adapters.registry import adapter_method
from workbench.errors import WorkbenchError
from workbench.recipe.optimizers import OPTIMIZERS
from workbench.recipe.sections.training import TrainingSection
from workbench.units import size_in

if TYPE_CHECKING:
    from peft import PeftModel

_MIN_BYTES = 200_000_000
# Tokenizer, configuration and template, which every adapter folder contains besides the weights.
_OTHER_FILES_BYTES = 20_000_000


def check_disk(folder: Path) -> None:
    """Raise WorkbenchError if the disk of a folder has no space for even a small adapter."""
    _check_free(folder, _MIN_BYTES, "200 MB at least")


def check_room_for_checkpoints(folder: Path, training: TrainingSection, model: "PeftModel") -> None:
    """Check that everything the run keeps at one time fits: checkpoints, the one being written, and the adapter.

    Args:
        model: the PEFT model, ready for training; its trainable weights are counted.

    Raises:
        WorkbenchError: the disk has less space than that.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad) + _OTHER_FILES_BYTES
    method = adapter_method(model.peft_config[model.active_adapter].to_dict())
    # What the method keeps, beside all ranks of its weights.
    kept = method.kept_copies + method.allocates_ranks
    checkpoint = weights * (1 + OPTIMIZERS[training.optim].largest_share + kept)
    planned = weights * (1 + kept) if training.save_only_model else checkpoint
    # A stop writes one checkpoint even if the recipe plans none.
    checkpoints = training.save_total_limit + 1 if training.save_steps else 1
    adapters = 3 if training.keep == "best" else 2
    total = (checkpoints - 1) * planned + checkpoint + adapters * weights
    purpose = f"{size_in('GB', total)} for {checkpoints} checkpoints and the adapter"
    _check_free(folder, max(total, _MIN_BYTES), purpose)


def _check_free(folder: Path, least: int, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < least:
        raise WorkbenchError(
            f"Only {size_in('MB', free, 0)} free on the disk of {folder}; the run needs {purpose}.",
            "Free some space, lower training.save_total_limit, or set output.dir to another disk.",
            kind="disk_full",
        )
