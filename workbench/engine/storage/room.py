"""Whether the disk has room for what a run will write, asked before it is needed."""

import shutil
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.recipe.schema import TrainingSection
from workbench.units import size_in

_LEAST = 200_000_000
# Tokenizer, configuration and template lie in every adapter folder.
_BESIDE_WEIGHTS = 20_000_000
# Bytes of optimizer state for each byte of a trained weight, at most: two moments, in float32 beside bfloat16 weights.
_OPTIMIZER_SHARE = {"sgd": 0, "adafactor": 1, "adamw_torch": 2, "adamw_torch_fused": 2}


def check_disk(folder: Path) -> None:
    """Raises WorkbenchError when not even a small adapter would fit."""
    _need(folder, _LEAST, "200 MB at least")


def check_room_for_checkpoints(folder: Path, training: TrainingSection, model: Any) -> None:
    """Look whether all that the run keeps at once will fit: checkpoints, the one being written, and the adapter.

    Args:
        model: the PEFT model in training shape; its trained weights are counted.

    Raises:
        WorkbenchError: the disk has less room than that.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad) + _BESIDE_WEIGHTS
    whole = weights * (1 + _OPTIMIZER_SHARE.get(training.optim, 4))
    # A stop writes one checkpoint even where none is planned.
    kept = training.save_total_limit + 1 if training.save_steps else 1
    adapters = 3 if training.keep == "best" else 2
    bytes_needed = kept * whole + adapters * weights
    _need(folder, max(bytes_needed, _LEAST), f"{size_in('GB', bytes_needed)} for {kept} checkpoints and the adapter")


def _need(folder: Path, least: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < least:
        raise WorkbenchError(
            f"Only {size_in('MB', free, 0)} free on the disk of {folder}; the run needs {what}.",
            "Free some space, lower training.save_total_limit, or set output.dir to another disk.",
            kind="disk_full",
        )
