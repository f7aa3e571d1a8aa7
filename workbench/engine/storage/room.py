"""Checks, before a run, that the disk has space for what the run will write."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.adapters.registry import adapter_method
from workbench.errors import WorkbenchError
from workbench.recipe.sections.training import TrainingSection
from workbench.units import size_in

if TYPE_CHECKING:
    from peft import PeftModel

_MIN_BYTES = 200_000_000
# Tokenizer, configuration and template, which every adapter folder contains besides the weights.
_OTHER_FILES_BYTES = 20_000_000
# Bytes of optimizer state per byte of trained weights, mostly 4: two moments in float32 for bfloat16 weights.
_OPTIMIZER_SHARE = {
    "sgd": 0, "adafactor": 1, "adagrad": 1, "rmsprop": 1, "adamw_torch": 2, "adamw_torch_fused": 2,
    "lion_32bit": 2, "lion_8bit": 2, "paged_lion_32bit": 2, "paged_lion_8bit": 2, "ademamix": 6,
    "paged_ademamix_32bit": 6,
}  # fmt: skip


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
    checkpoint = weights * (1 + _OPTIMIZER_SHARE.get(training.optim, 4) + kept)
    # A stop writes one checkpoint even if the recipe plans none.
    checkpoints = training.save_total_limit + 1 if training.save_steps else 1
    adapters = 3 if training.keep == "best" else 2
    total = checkpoints * checkpoint + adapters * weights
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
