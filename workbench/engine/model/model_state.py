"""Collects a loaded model's tensors by name, and fingerprints them to tell whether two models are the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Tensors = dict[str, "torch.Tensor"]
Fingerprint = list[object]
"""Dtype, shape and the sums of a tensor's bytes; a list, since it is stored as JSON."""


class ModelSettings(TypedDict):
    """A model's configurations as JSON data, and its size in bytes (``footprint``)."""

    config: dict[str, object]
    generation: dict[str, object]
    footprint: int


@dataclass(frozen=True)
class ModelState:
    """The tensors of a model at one moment.

    Attributes:
        stored: what a checkpoint contains, parts of quantized weights included; each tensor under one name.
        ties: further names of those tensors, mapped to the name in ``stored``.
        buffers: buffers that are computed from the configuration whenever the model is built.
    """

    stored: Tensors
    ties: dict[str, str]
    buffers: Tensors

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "ModelState":
        """References to the tensors, not copies; only biases are copied, since a run may train them in place."""
        import torch

        stored: Tensors = {}
        ties: dict[str, str] = {}
        names: dict[tuple[object, ...], str] = {}
        # bitsandbytes' tensor classes refer to their layer, and would keep the model alive.
        everything = {name: tensor.as_subclass(torch.Tensor) for name, tensor in model.state_dict().items()}
        for name, tensor in everything.items():
            first = names.setdefault((tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape), name)
            if first != name and tensor.numel():
                ties[name] = first
            else:
                stored[name] = tensor.to("cpu", copy=True) if name.endswith("bias") else tensor
        buffers = {name: buffer for name, buffer in model.named_buffers() if name not in everything}
        return cls(stored, ties, buffers)

    def fingerprints(self) -> dict[str, Fingerprint]:
        """A fingerprint for each name."""
        fingerprints = fingerprints_of(self.stored | self.buffers)
        return fingerprints | {name: fingerprints[first] for name, first in self.ties.items()}


def fingerprints_of(tensors: "Mapping[str, torch.Tensor]") -> dict[str, Fingerprint]:
    """Dtype, shape and byte sums of each tensor: one sum per quarter of the tensor, of its bytes as 64-bit integers.

    Sums are computed on the tensor's device; all sums of a device are copied to the host at once.
    """
    import torch

    sums: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors.values():
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        quarter = flat.numel() // 32 * 8
        words = flat[: 4 * quarter]
        if words.data_ptr() % 8 or words.storage_offset() % 8:
            words = words.clone()
        quarters = words.view(torch.int64).reshape(4, -1).sum(1)
        rest = flat[4 * quarter :].sum(dtype=torch.int64).reshape(1)
        sums.setdefault(tensor.device, []).append(torch.cat([quarters, rest]))
    rows = {device: iter(torch.stack(some).tolist()) for device, some in sums.items()}
    return {
        name: [str(tensor.dtype), list(tensor.shape), *next(rows[tensor.device])] for name, tensor in tensors.items()
    }


def dtypes_and_shapes(fingerprints: Mapping[str, Fingerprint]) -> dict[str, Fingerprint]:
    """The part of the fingerprints that does not depend on the tensors' values."""
    return {name: fingerprint[:2] for name, fingerprint in fingerprints.items()}


def settings_of(model: "PreTrainedModel") -> ModelSettings:
    """The model's configuration and generation configuration as JSON data, and its size."""
    both = [model.config.to_dict(), model.generation_config.to_dict() if model.generation_config else {}]
    config, generation = json.loads(json.dumps(both, default=str))
    return {"config": config, "generation": generation, "footprint": model.get_memory_footprint()}
