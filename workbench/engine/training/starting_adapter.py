"""Starts a run from the weights of an adapter that exists. Imports torch."""

import json
from typing import TYPE_CHECKING

from workbench.adapters.registry import adapter_method, method_of
from workbench.engine.generation.reply_targets import resolve
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import check_same_base
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.saving import copy_adapter, load_adapter
from workbench.engine.steering.ranks import Ranks
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.adapter import AdapterSection
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from pathlib import Path

    import torch

# What may differ without changing what the weights mean; the dropouts may too.
_FREE = {"target_modules", "exclude_modules", "modules_to_save", "init_lora_weights", "init_weights"}


def keep_starting_adapter(home: Home, run: RunFolder, recipe: Recipe, base: LoadedBase, ranks: Ranks) -> None:
    """Copy the adapter that a run starts from into its folder, so that it resumes even if the other one is gone.

    Raises:
        WorkbenchError: there is no such adapter, it belongs to another base, or its settings are not the recipe's.
    """
    name = recipe.adapter.continue_from
    if name is None or (run.start / "adapter_config.json").is_file():
        return
    target = resolve(home, name)
    if target.adapter is None:
        raise WorkbenchError(
            f"adapter.continue_from: {name} is a base model, or there is no such run or adapter folder.",
            "Give a run, a checkpoint (run@40) or an adapter folder; leave it empty for a new adapter.",
            kind="no_adapter",
        )
    check_adapter(target.adapter)
    check_same_base(base, target.model, name)
    _check_settings(name, recipe.adapter, target.adapter)
    folder = target.adapter
    ranks.first_before_others(lambda: copy_adapter(folder, run.start) if ranks.is_first else None)


def _check_settings(name: str, adapter: AdapterSection, folder: "Path") -> None:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    method, theirs = method_of(adapter.method), adapter_method(config)
    if method.peft_type != theirs.peft_type:
        raise WorkbenchError(
            f"adapter.continue_from: {name} is a {theirs.label} adapter, and adapter.method is {method.name}.",
            f"Set adapter.method to {theirs.name}: a run continues an adapter as it is.",
            kind="adapter",
        )
    asked = method.arguments(adapter)
    for key in sorted(asked.keys() - _FREE, key=lambda name: (name != "r", name)):
        found, wanted = config.get(key) or None, asked[key] or None
        if found != wanted and not key.endswith("dropout"):
            place = f"{key} in adapter.options" if key in method.options else f"adapter.{key}"
            raise WorkbenchError(
                f"adapter.continue_from: {name} has {key} {found or 'unset'}, and the recipe {wanted or 'unset'}.",
                f"Set {place} to {json.dumps(config.get(key))}: a run continues an adapter as it is.",
                kind="adapter",
            )


def load_starting_weights(base: LoadedBase, run: RunFolder, name: str) -> "dict[str, torch.Tensor]":
    """Load the kept adapter's weights into the attached one; returns copies of the trained ones by parameter.

    Raises:
        WorkbenchError: it adapts other layers.
    """
    from safetensors import safe_open

    model = base.peft
    assert model is not None
    with safe_open(run.start / "adapter_model.safetensors", "pt") as file:
        kept = set(file.keys())
    from peft import get_peft_model_state_dict

    own = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if own != kept:
        first = min(own ^ kept)
        raise WorkbenchError(
            f"adapter.continue_from: {name} adapts other layers: {first} is only in "
            f"{'that adapter' if first in kept else 'the adapter of the recipe'}.",
            "Set adapter.target_modules and modules_to_save to those of its adapter_config.json.",
            kind="adapter",
        )
    load_adapter(model, run.start)
    base.cast_adapter()
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
