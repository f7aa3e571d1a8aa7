"""What to change where PEFT refuses an adapter for a model: the default dropout on fused experts, names it lacks, …"""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from workbench.adapters.settings import AdapterSettings
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import plan_adapter
from workbench.estimate.adapter.sites import sites
from workbench.models.skeleton import Skeleton

Changes = Mapping[str, Any]


def suggested_fix(skeleton: Skeleton, adapter: AdapterSettings) -> Changes | None:
    """The smallest known change to a recipe that makes PEFT accept its adapter: dotted paths and values.

    Returns:
        Nothing to change where it is accepted as it is; None where no change is known to help.
    """
    for changes in ({}, *_candidates(skeleton, adapter)):
        if _is_accepted(skeleton, adapter, changes):
            return changes
    return None


def refusal_with_fix(skeleton: Skeleton, adapter: AdapterSettings) -> WorkbenchError | None:
    """Why PEFT would refuse an adapter for a model, with a change that helps if one is known; None if it would not."""
    try:
        plan_adapter(skeleton, adapter)
    except WorkbenchError as error:
        return with_fix(error, skeleton, adapter)
    return None


def with_fix(error: WorkbenchError, skeleton: Skeleton, adapter: AdapterSettings) -> WorkbenchError:
    """The refusal of an adapter, with a change that helps if one is known."""
    if not (changes := suggested_fix(skeleton, adapter)):
        return error
    return WorkbenchError(error.message, f"{error.cure} It works with {changes_text(changes)}.", kind=error.kind)


def changes_text(changes: Changes) -> str:
    """``lora_dropout 0``; in a sentence."""
    return ", ".join(f"{_short_name(path)} {_value_text(value)}" for path, value in changes.items())


def _short_name(path: str) -> str:
    return "quantization" if path == "quantization.method" else path.rpartition(".")[2]


def options_text(changes: Changes) -> str:
    """``--set adapter.lora_dropout=0``; for a command line."""
    return " ".join(f"--set {shlex.quote(f'{path}={_value_text(value)}')}" for path, value in changes.items())


def _candidates(skeleton: Skeleton, adapter: AdapterSettings) -> Iterator[dict[str, Any]]:
    without: dict[str, Any] = {}
    if adapter.lora_dropout:
        without["adapter.lora_dropout"] = 0.0
        yield without
    if adapter.use_dora:
        yield {"adapter.use_dora": False}
        yield {**without, "adapter.use_dora": False}
    layers = {} if adapter.layers_to_transform is None else {"adapter.layers_to_transform": None}
    everything = {"adapter.target_modules": "all-linear", **layers}
    yield everything
    yield {**everything, **without}
    if names := _adaptable(skeleton, adapter):
        yield {"adapter.target_modules": names}


def _adaptable(skeleton: Skeleton, adapter: AdapterSettings) -> list[str]:
    """Last names of the linear layers that can be adapted, for models where not all can (Mamba)."""
    linear = (site.name for site in sites(skeleton) if site.kind in ("linear", "conv1d"))
    names = dict.fromkeys(name.rpartition(".")[2] for name in linear if name != skeleton.output)
    return [name for name in names if _is_accepted(skeleton, adapter, {"adapter.target_modules": [name]})]


def _is_accepted(skeleton: Skeleton, adapter: AdapterSettings, changes: Changes) -> bool:
    try:
        plan_adapter(skeleton, adapter.varied({path.partition(".")[2]: value for path, value in changes.items()}))
    except WorkbenchError:
        return False
    return True


def _value_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
