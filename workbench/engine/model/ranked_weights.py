"""Saves and loads AdaLoRA adapters, of whose matrices PEFT saves only the ranks in use. Imports torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from workbench.engine.kernels.rank_allocation import RankAllocation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import PeftModel

STATE = "rank_allocation.safetensors"
"""File of a checkpoint with all ranks, which PEFT leaves out, and with the importance of each weight."""

_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_WEIGHT = "weight."


def save_allocation(allocation: RankAllocation, model: "PeftModel", folder: Path) -> None:
    """Save into a checkpoint what its adapter file lacks, so that a run continues exactly."""
    tensors = {
        f"{kind}.{name}": value for kind in _IMPORTANCE for name, value in getattr(allocation.allocator, kind).items()
    }
    tensors |= {_WEIGHT + key: parameter for key, parameter in _matrices(model).items()}
    # On the CPU, and each with memory of its own, as safetensors asks.
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, folder / STATE)


def load_allocation(allocation: RankAllocation, model: "PeftModel", folder: Path) -> None:
    """Continue with the ranks and the importance that a checkpoint has, and with all its weights."""
    saved = load_file(folder / STATE)
    whole = {name.removeprefix(_WEIGHT): value for name, value in saved.items() if name.startswith(_WEIGHT)}
    _load(model, folder, whole)
    parameters = dict(model.base_model.model.named_parameters())
    for kind in _IMPORTANCE:
        of_kind = {name.removeprefix(f"{kind}."): value for name, value in saved.items() if name.startswith(f"{kind}.")}
        values = {name: value.to(parameters[name].device) for name, value in of_kind.items()}
        setattr(allocation.allocator, kind, values)


def load_ranked(model: "PeftModel", folder: Path) -> None:
    """Load an AdaLoRA adapter into one that has all ranks: those that the file lacks become zero."""
    weights = load_file(folder / "adapter_model.safetensors")
    whole = {}
    for name, used in (_pattern(folder) or {}).items():
        stem, mask = f"base_model.model.{name.removesuffix('lora_E')}", torch.tensor(used, dtype=torch.bool)
        for part in ("lora_A", "lora_B", "lora_E"):
            some = weights[f"{stem}{part}"]
            shape = (some.shape[0], len(mask)) if part == "lora_B" else (len(mask), some.shape[1])
            every = torch.zeros(shape, dtype=some.dtype)
            every[(slice(None), mask) if part == "lora_B" else mask] = some
            whole[f"{stem}{part}"] = every
    _load(model, folder, whole)


def _load(model: "PeftModel", folder: Path, whole: "Mapping[str, torch.Tensor]") -> None:
    from peft import set_peft_model_state_dict

    config = model.peft_config[model.active_adapter]
    # With a pattern, PEFT would replace the parameters that the optimizer has by smaller ones.
    config.rank_pattern = None
    weights = load_file(folder / "adapter_model.safetensors") | dict(whole)
    set_peft_model_state_dict(model, weights, adapter_name=model.active_adapter)
    config.rank_pattern = _pattern(folder)


def _pattern(folder: Path) -> dict[str, list[bool]] | None:
    """Which ranks of each layer the file has; None for all."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    pattern: dict[str, list[bool]] | None = config.get("rank_pattern") or None
    return pattern


def _matrices(model: "PeftModel") -> dict[str, torch.Tensor]:
    """The adapter's whole matrices by their names in an adapter file."""
    suffix = f".{model.active_adapter}"
    return {
        name.removesuffix(suffix): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name and name.endswith(suffix)
    }
