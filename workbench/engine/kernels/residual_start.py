"""LoRA starts that move part of the base's weights into the adapter: W - s·B₀·A₀ is trained with B·A.

Saved as they are, such adapters work only on a base that was changed in the same way. Saved as [A; A₀] and [B, -B₀], of
twice the rank, they are plain LoRA adapters of the base as it is.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def subtract_start(model: Any, adapter: str = "default") -> None:
    """Subtract the product of an adapter's matrices from the weights of the base."""
    for layer in model.modules():
        if adapter not in getattr(layer, "lora_A", {}):
            continue
        base = layer.get_base_layer()
        a, b = (matrix[adapter].weight.detach().float() for matrix in (layer.lora_A, layer.lora_B))
        product = layer.scaling[adapter] * b @ a
        product = product.T if layer.fan_in_fan_out else product
        # A new tensor: whoever restores the base holds the old one.
        base.weight.data = (base.weight.data.float() - product).to(base.weight.dtype)


def save_as_plain(model: Any, start: Path) -> None:
    """Let ``model.save_pretrained`` write plain adapters, from now on.

    Args:
        start: folder with the adapter's first weights.
    """
    model.save_pretrained = partial(_save, model.save_pretrained, start)


def is_saved_as_plain(model: Any) -> bool:
    """Whether the files of an adapter in memory are plain adapters, which also have its first weights."""
    return getattr(model.save_pretrained, "func", None) is _save


def _save(save: Callable[..., None], start: Path, folder: Any, *arguments: Any, **options: Any) -> None:
    save(folder, *arguments, **options)
    make_plain(Path(folder), start)


def make_plain(folder: Path, start: Path) -> None:
    """Turn an adapter folder into one of a plain LoRA adapter of twice the rank."""
    weights, first = load_file(folder / _WEIGHTS), load_file(start / _WEIGHTS)
    for name, tensor in weights.items():
        if ".lora_A." in name:
            weights[name] = torch.cat([tensor, first[name].to(tensor.dtype)], dim=0)
        elif ".lora_B." in name:
            weights[name] = torch.cat([tensor, -first[name].to(tensor.dtype)], dim=1)
    save_file(weights, folder / _WEIGHTS, {"format": "pt"})
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    # Of twice the rank, so that alpha / r (with rsLoRA alpha / √r) stays as it is.
    alpha = 2**0.5 if config["use_rslora"] else 2
    config["r"] *= 2
    config["lora_alpha"] *= alpha
    config["rank_pattern"] = {name: 2 * rank for name, rank in (config.get("rank_pattern") or {}).items()}
    config["alpha_pattern"] = {name: alpha * value for name, value in (config.get("alpha_pattern") or {}).items()}
    (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def trained_part(weights: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a plain adapter that were trained.

    Args:
        own: the weights of the adapter in memory, by the same names.
    """
    found = dict(weights)
    for name, tensor in weights.items():
        if ".lora_A." in name or ".lora_B." in name:
            axis = 0 if ".lora_A." in name else 1
            found[name] = tensor.narrow(axis, 0, own[name].shape[axis])
    return found
