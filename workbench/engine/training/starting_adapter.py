"""Starts a run from the weights of an adapter that exists. Imports torch."""

import json
from typing import TYPE_CHECKING

from workbench.adapters.registry import adapter_method, method_of
from workbench.engine.generation.reply_targets import resolve
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import check_fit, check_same_base
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.new_rows import embedding_rows
from workbench.engine.model.saving import copy_adapter, load_adapter
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.engine.steering.ranks import Ranks
from workbench.engine.training.starting_head import check_starting_head, complete_head, keys_of, reorder_head
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.sections.model import ModelSection
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from pathlib import Path

    import torch

# What may differ without changing what the weights mean; the dropouts may too.
_FREE = {"target_modules", "exclude_modules", "modules_to_save", "init_lora_weights", "init_weights"}


def keep_starting_adapter(
    home: Home, run: RunFolder, recipe: Recipe, base: LoadedBase, ranks: Ranks, head: SequenceHead | None = None
) -> list[str]:
    """Copy the adapter that a run starts from into its folder, so that it resumes even if the other one is gone.

    An adapter that no run of this home made may name its base otherwise: the recipe's base counts, if the shapes fit.

    Args:
        head: what the recipe's adapter predicts with a head of its own.

    Returns:
        Notices: that the adapter names another base, or that its head is a new one.

    Raises:
        WorkbenchError: there is no such adapter, it belongs to another base, or its settings are not the recipe's.
    """
    name = recipe.adapter.continue_from
    if name is None or (run.start / "adapter_config.json").is_file():
        return []
    target = resolve(home, name, names_base=False)
    if target.adapter is None:
        raise WorkbenchError(
            f"adapter.continue_from: {name} is a base model, or there is no such run or adapter folder.",
            "Give a run, a checkpoint (run@40) or an adapter folder; leave it empty for a new adapter.",
            kind="no_adapter",
        )
    config = check_adapter(target.adapter)
    if target.run is not None:
        _check_base_of_run(base, target.model, name)
    _check_rows(base, name, check_fit(base, target.adapter, config))
    _check_settings(name, recipe.adapter, target.adapter)
    folder = target.adapter
    theirs = SequenceHead.of(folder, config)
    check_starting_head(name, recipe.objective.kind, head, theirs)

    def keep() -> None:
        copy_adapter(folder, run.start)
        if head is not None and theirs is not None:
            reorder_head(run.start, theirs, head)

    ranks.first_before_others(lambda: keep() if ranks.is_first else None)
    notices = []
    if head is not None and theirs is None:
        notices.append(f"{name} predicts tokens: its layers are taken over, and the head of {head.kind} is a new one.")
    named = str(config.get("base_model_name_or_path") or "")
    if target.run is None and not base.is_named(named):
        notices.append(
            f"adapter.continue_from: {name} names {named or 'no model'} as its base. It is continued on "
            f"{base.section.source}, whose layers have the same shapes."
        )
    return notices


def _check_base_of_run(base: LoadedBase, model: ModelSection, name: str) -> None:
    try:
        check_same_base(base, model, name)
    except WorkbenchError as error:
        raise WorkbenchError(
            f"adapter.continue_from: {error.message}",
            f"Set model.source to {model.source}. If that model has another name or path here, copy the folder of the "
            "run's adapter out of the run and give that to adapter.continue_from.",
            kind=error.kind,
        ) from None


def _check_rows(base: LoadedBase, name: str, rows: int) -> None:
    if rows:
        raise WorkbenchError(
            f"adapter.continue_from: {name} was trained with an enlarged vocabulary of {rows:,} rows, and "
            f"{base.section.source} has {embedding_rows(base.model):,}.",
            "Export it as `merged` and train a new adapter on that: a run does not enlarge a base for an adapter.",
            kind="adapter",
        )


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


def load_starting_weights(base: LoadedBase, run: RunFolder, name: str, ranks: Ranks) -> "dict[str, torch.Tensor]":
    """Load the kept adapter's weights into the attached one; returns copies of the trained ones by parameter.

    Raises:
        WorkbenchError: it adapts other layers.
    """
    from peft import get_peft_model_state_dict

    model = base.peft
    assert model is not None
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    # PEFT loads no adapter without the head that it expects.
    ranks.first_before_others(lambda: complete_head(run.start, state) if ranks.is_first else None)
    own, kept = set(state), keys_of(run.start)
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
