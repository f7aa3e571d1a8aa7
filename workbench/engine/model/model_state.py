"""All that makes a loaded model what it is, as tensors by name, and marks that tell whether another is the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]
# Number type, shape, and the sums of its bytes.
Mark = list[Any]


@dataclass(frozen=True)
class ModelState:
    """Tensors of a model, as they are at this moment.

    Attributes:
        stored: what a checkpoint holds, the parts of quantised weights included; each tensor under one name.
        ties: further names of such tensors.
        passing: buffers that are made from the configuration whenever the model is.
    """

    stored: State
    ties: dict[str, str]
    passing: State

    @classmethod
    def of(cls, model: Any) -> "ModelState":
        """The tensors themselves, not copies; only biases are copied, since a run may train them in place."""
        import torch

        stored: State = {}
        ties: dict[str, str] = {}
        names: dict[tuple[object, ...], str] = {}
        # bitsandbytes' own kinds of tensor know their layer, and would keep the model alive.
        everything = {name: tensor.as_subclass(torch.Tensor) for name, tensor in model.state_dict().items()}
        for name, tensor in everything.items():
            first = names.setdefault((tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape), name)
            if first != name and tensor.numel():
                ties[name] = first
            else:
                stored[name] = tensor.to("cpu", copy=True) if name.endswith("bias") else tensor
        passing = {name: buffer for name, buffer in model.named_buffers() if name not in everything}
        return cls(stored, ties, passing)

    def marks(self) -> dict[str, Mark]:
        """A mark for each name."""
        found = marks_of(self.stored | self.passing)
        return found | {name: found[first] for name, first in self.ties.items()}


def marks_of(state: Mapping[str, Any]) -> dict[str, Mark]:
    """Type, shape and sums of each tensor: of its bytes as whole numbers, a quarter of it at a time.

    They are added up where the tensor lies; all sums of a device come to the host at once.
    """
    import torch

    sums: dict[Any, list[Any]] = {}
    for tensor in state.values():
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        quarter = flat.numel() // 32 * 8
        words = flat[: 4 * quarter]
        if words.data_ptr() % 8 or words.storage_offset() % 8:
            words = words.clone()
        quarters = words.view(torch.int64).reshape(4, -1).sum(1)
        rest = flat[4 * quarter :].sum(dtype=torch.int64).reshape(1)
        sums.setdefault(tensor.device, []).append(torch.cat([quarters, rest]))
    told = {device: iter(torch.stack(some).tolist()) for device, some in sums.items()}
    return {name: [str(tensor.dtype), list(tensor.shape), *next(told[tensor.device])] for name, tensor in state.items()}


def shapes(marks: Mapping[str, Mark]) -> dict[str, Mark]:
    """What of the marks does not depend on a tensor's values."""
    return {name: mark[:2] for name, mark in marks.items()}


def settings_of(model: Any) -> dict[str, Any]:
    """Its configuration and that of its generation, in the words that JSON has for them; how large it is."""
    both = [model.config.to_dict(), model.generation_config.to_dict() if model.generation_config else {}]
    config, generation = json.loads(json.dumps(both, default=str))
    return {"config": config, "generation": generation, "footprint": model.get_memory_footprint()}
