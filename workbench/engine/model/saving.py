"""Saves, copies and loads adapter folders; a reader never sees a half-written one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.adapters.registry import adapter_method
from workbench.data.templates.template import Template
from workbench.engine.model.base import LoadedBase
from workbench.models.older_transformers import add_older_keys
from workbench.runs.checkpoints import sync_folder
from workbench.storage.atomic import put_folder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

# Files of a checkpoint that only the trainer needs.
_TRAINER_FILES = (
    "optimizer*",
    "scheduler*",
    "scaler*",
    "rng_state*",
    "trainer_state.json",
    "workbench*.json",
    "rank_allocation*",
    "manifest.json",
    "trained_weights.safetensors",
)
_TRAINED = "trained_weights.safetensors"


def save_adapter(
    base: LoadedBase, template: Template, folder: Path, weights: "dict[str, torch.Tensor] | None" = None
) -> None:
    """Save the adapter being trained on ``base``, with tokenizer and template, as a standard PEFT folder.

    Args:
        weights: the full state dict of the model, if ``base`` holds only a part of it.

    Raises:
        OSError: the disk is full or broken; an existing folder of that name is unchanged.
    """

    def fill(staging: Path) -> None:
        base.active.save_pretrained(staging, safe_serialization=True, state_dict=weights)
        base.tokenizer.save_pretrained(staging)
        template.save(staging)
        if base.head is not None:
            base.head.save(staging)
        add_older_keys(staging)

    _replace(folder, fill)


def copy_adapter(source: Path, folder: Path) -> None:
    """Copy the adapter of a checkpoint, or of another adapter folder, into a folder of its own.

    Raises:
        OSError: as :func:`save_adapter`.
    """
    _replace(folder, lambda staging: shutil.copytree(source, staging, ignore=shutil.ignore_patterns(*_TRAINER_FILES)))


def load_adapter(model: "PeftModel", folder: Path) -> None:
    """Load an adapter folder's weights into the active adapter of a PEFT model; the adapter's dtypes stay."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    from workbench.engine.kernels.residual_start import is_saved_as_plain, trained_part

    if adapter_method(model.peft_config[model.active_adapter].to_dict()).allocates_ranks:
        from workbench.engine.model.ranked_weights import load_ranked

        load_ranked(model, folder)
        return
    weights = load_file(folder / "adapter_model.safetensors")
    if is_saved_as_plain(model):
        weights = trained_part(weights, get_peft_model_state_dict(model, save_embedding_layers=False))
    set_peft_model_state_dict(model, weights, adapter_name=model.active_adapter)


def save_trained_weights(model: "PeftModel", folder: Path) -> None:
    """Save the weights that are trained, where the adapter in a checkpoint holds averages of them."""
    from safetensors.torch import save_file

    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    save_file({name: weight.detach().contiguous() for name, weight in trained.items()}, folder / _TRAINED)


def load_trained_weights(model: "PeftModel", folder: Path) -> None:
    """Load what :func:`save_trained_weights` saved; does nothing for other checkpoints."""
    if not (folder / _TRAINED).is_file():
        return
    from safetensors.torch import load_file

    own = dict(model.named_parameters())
    for name, weight in load_file(folder / _TRAINED).items():
        own[name].data.copy_(weight)


def _replace(folder: Path, fill: Callable[[Path], object]) -> None:
    """Write a folder with ``fill`` under another name, then rename it to ``folder``."""
    staging, before = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.before")
    shutil.rmtree(staging, ignore_errors=True)
    if not folder.exists() and before.exists():
        # A process was killed between the two renames of `put_folder`.
        before.rename(folder)
    try:
        fill(staging)
        sync_folder(staging)
        shutil.rmtree(before, ignore_errors=True)
        put_folder(staging, folder, before)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
