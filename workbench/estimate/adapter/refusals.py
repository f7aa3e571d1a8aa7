"""What PEFT refuses about the targets of an adapter, and names that match nothing, with a remedy for each."""

import difflib
import re

from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.sites import Site
from workbench.models.skeleton import Skeleton


def check_parameters(settings: AdapterSettings) -> None:
    """Refuse what experts stored as one weight do not support.

    PEFT's ``ParamWrapper`` multiplies the weights themselves, so nothing can act on what goes into A alone.

    Raises:
        WorkbenchError: says what to switch off.
    """
    start = settings.init_lora_weights
    switched_on = {
        # A default is dropped instead (AdapterPlan.dropout).
        "lora_dropout": (settings.lora_dropout > 0 and not settings.dropout_is_default, "adapter.lora_dropout=0"),
        "DoRA": (settings.use_dora, "adapter.use_dora=false"),
        "lora_bias": (settings.lora_bias, "lora_bias=false"),
        "LoRA-FA": (settings.trains_b_only, "training.optim=adamw_torch_fused"),
        f"init_lora_weights {start}": (
            isinstance(start, str) and start != "gaussian",
            "adapter.init_lora_weights=true",
        ),
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


def nothing_matched(settings: AdapterSettings, everything: tuple[Site, ...]) -> WorkbenchError:
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
