"""Adapter folders, written so that half of one is never seen."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.data.templates.template import Template
from workbench.engine.model.base import LoadedBase
from workbench.runs.checkpoints import sync_folder
from workbench.storage.atomic import put_folder

# What a checkpoint holds for the trainer's sake only.
_TRAINERS = (
    "optimizer*",
    "scheduler*",
    "scaler*",
    "rng_state*",
    "trainer_state.json",
    "workbench*.json",
    "manifest.json",
)


def save_adapter(base: LoadedBase, template: Template, folder: Path, weights: Any = None) -> None:
    """Write the adapter that is trained on ``base``, with tokenizer and template, as a standard PEFT folder.

    Args:
        weights: the whole state of the model, where ``base`` holds only a part of it.

    Raises:
        OSError: the disk is full or broken; an older folder of that name is untouched.
    """

    def fill(aside: Path) -> None:
        base.peft.save_pretrained(aside, safe_serialization=True, state_dict=weights)
        base.tokenizer.save_pretrained(aside)
        template.save(aside)

    _replace(folder, fill)


def copy_adapter(source: Path, folder: Path) -> None:
    """Make an adapter folder of a checkpoint, or of another adapter folder.

    Raises:
        OSError: as :func:`save_adapter`.
    """
    _replace(folder, lambda aside: shutil.copytree(source, aside, ignore=shutil.ignore_patterns(*_TRAINERS)))


def load_adapter(model: Any, folder: Path) -> None:
    """Put the weights of an adapter folder into the active adapter of a PEFT model, in the types they have there."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(folder / "adapter_model.safetensors")
    set_peft_model_state_dict(model, weights, adapter_name=model.active_adapter)


def _replace(folder: Path, fill: Callable[[Path], object]) -> None:
    aside, before = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.before")
    shutil.rmtree(aside, ignore_errors=True)
    if not folder.exists() and before.exists():
        # A process was killed between the two renames of `put_folder`.
        before.rename(folder)
    try:
        fill(aside)
        sync_folder(aside)
        shutil.rmtree(before, ignore_errors=True)
        put_folder(aside, folder, before)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
