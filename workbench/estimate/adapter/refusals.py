"""What PEFT refuses about the targets of an adapter, and names that match nothing, with a remedy for each."""

import difflib
import re

from workbench.errors import WorkbenchError
from workbench.estimate.adapter.settings import LoraSettings
from workbench.estimate.adapter.sites import Site
from workbench.models.skeleton import Skeleton

_MAMBA_TYPES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
_MAMBA_REFUSED = {"out_proj", "conv1d"}


def check_module(skeleton: Skeleton, site: Site, r: int, settings: LoraSettings) -> None:
    """Refuse a layer that cannot get an adapter of this rank.

    Raises:
        WorkbenchError: says why, and what to change.
    """
    leaf = site.name.rpartition(".")[2]
    if skeleton.model_type in _MAMBA_TYPES and leaf in _MAMBA_REFUSED:
        raise WorkbenchError(
            f"LoRA does not work on {site.name}: Mamba uses the weights of {leaf} without calling the layer.",
            "List other targets, such as [in_proj, x_proj], instead of all-linear.",
            kind="adapter_target",
        )
    if site.kind == "other":
        raise WorkbenchError(
            f"{site.name} is a {site.module.class_name}; LoRA supports linear, embedding and convolution layers.",
            "Target the layers inside it.",
            kind="adapter_target",
        )
    if site.kind == "embedding" and settings.lora_bias:
        raise WorkbenchError(
            f"lora_bias does not work on the embedding {site.name}.", "Turn it off.", kind="adapter_target"
        )
    if site.kind == "convolution" and r % site.module.facts["groups"]:
        groups = site.module.facts["groups"]
        raise WorkbenchError(
            f"{site.name} is a convolution with {groups} groups; r = {r} is not a multiple.",
            "Choose another rank or leave this layer out.",
            kind="adapter_target",
        )
    _check_start(site, r, settings)


def _check_start(site: Site, r: int, settings: LoraSettings) -> None:
    start = settings.init_lora_weights
    if isinstance(start, bool) or start == "gaussian":
        return
    if site.kind in ("embedding", "convolution"):
        raise WorkbenchError(
            f"init_lora_weights: {start} works on linear layers only, and {site.name} is an {site.module.class_name}.",
            "Set adapter.init_lora_weights to true, or leave this layer out.",
            kind="adapter_target",
        )
    if start == "orthogonal" and r % 2:
        raise WorkbenchError(
            f"init_lora_weights: orthogonal needs an even rank, and {site.name} has r = {r}.",
            "Choose an even r.",
            kind="adapter_target",
        )


def check_parameters(settings: LoraSettings) -> None:
    """Refuse what experts stored as one weight do not support.

    PEFT's ``ParamWrapper`` multiplies the weights themselves, so nothing can act on what goes into A alone.

    Raises:
        WorkbenchError: says what to switch off.
    """
    switched_on = {
        # A default is dropped instead (AdapterPlan.dropout).
        "lora_dropout": (settings.lora_dropout > 0 and not settings.dropout_is_default, "adapter.lora_dropout=0"),
        "DoRA": (settings.use_dora, "adapter.use_dora=false"),
        "lora_bias": (settings.lora_bias, "lora_bias=false"),
    }
    found = {name: cure for name, (is_on, cure) in switched_on.items() if is_on}
    if found:
        raise WorkbenchError(
            f"The experts of this model are stored as one weight, which {next(iter(found))} does not support.",
            f"Set {' and '.join(found.values())}, or target the attention only.",
            kind="adapter_experts",
        )


def only_frozen(skeleton: Skeleton, left_out: tuple[str, ...]) -> WorkbenchError:
    """The error for targets that are all in parts which get no adapter."""
    kinds = dict.fromkeys(part.kind for part in skeleton.frozen_parts)
    return WorkbenchError(
        f"adapter.target_modules matches only layers that get no adapter in training on text ({', '.join(kinds)}), "
        f"such as {left_out[0]}.",
        "Choose layers of the language part, or all-linear.",
        kind="adapter_target",
    )


def nothing_matched(settings: LoraSettings, everything: tuple[Site, ...]) -> WorkbenchError:
    """The error for targets that match no layer of the model."""
    if isinstance(settings.target_modules, str):
        message = f"adapter.target_modules: {settings.target_modules!r} matches no layer of this model."
        return unknown_names(message, re.findall(r"\w+", settings.target_modules), everything)
    listed = ", ".join(settings.target_modules)
    if settings.layers_to_transform:
        message = f"No layer among {list(settings.layers_to_transform)} has a module called {listed}."
    else:
        message = f"adapter.target_modules: this model has no module called {listed}."
    return unknown_names(message, list(settings.target_modules), everything)


def unknown_names(message: str, names: list[str], everything: tuple[Site, ...]) -> WorkbenchError:
    """The error for names that the model does not have, with the nearest that it has."""
    leaves = list(
        dict.fromkeys(s.name.rpartition(".")[2] for s in everything if s.kind in ("linear", "conv1d", "embedding"))
    )
    near = list(
        dict.fromkeys(hit for name in names for hit in difflib.get_close_matches(name, leaves, n=2, cutoff=0.5))
    )
    cure = f"Did you mean {' or '.join(near)}?" if near else ""
    return WorkbenchError(message, f"{cure} It has {', '.join(leaves)}.".strip(), kind="adapter_target")
