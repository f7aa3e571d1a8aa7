"""Finds the part of a model in which a way to compute its loss first differs from the model's own forward."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from workbench.adapters.registry import methods
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.models.tokenizers import pad_token_id

if TYPE_CHECKING:
    import torch

    from workbench.engine.model.loss_check.records import Record

# Parts of PEFT's wrappers, which are not the model's.
_OF_PEFT = re.compile(rf"\.(base_layer|(?:{'|'.join(method.prefix for method in methods().values())})\w+)(\.|$)")


def first_difference(base: LoadedBase, path: LossPath, samples: "Sequence[Record]", bound: float) -> str:
    """Name the part, by its class and place, as in ``short convolution Lfm2ShortConv (model.layers.0.conv)``.

    Args:
        bound: relative difference of states that is rounding.
    """
    import torch

    with torch.no_grad(), suppress(Exception):
        alone: list[dict[str, torch.Tensor]] = []
        for sample in samples:
            with _states_of(base) as states:
                base.active(input_ids=torch.tensor([sample["input_ids"]], device=base.device), use_cache=False)
            alone.append(states)
        rows: list[dict[str, torch.Tensor]] = []
        with base.loss_path(path):
            for records in [[sample] for sample in samples] if path.one_record else [list(samples)]:
                with _states_of(base) as states:
                    collated = path.collator(pad_token_id(base.tokenizer))(records)
                    inputs = {
                        name: value if isinstance(value, int) else value.to(base.device)
                        for name, value in collated.items()
                    }
                    base.active(**inputs, use_cache=False, fused_lm_head=True)
                rows.append(states)
        for name in alone[0]:
            if any(
                _differs(own[name], _part(rows, name, path, samples, index), bound) for index, own in enumerate(alone)
            ):
                return _described(base, name)
    return "the output layer"


@contextmanager
def _states_of(base: LoadedBase) -> "Iterator[dict[str, torch.Tensor]]":
    """Within, the outputs of the model's modules are collected, in the order in which the modules finish."""
    import torch

    head = base.model.get_output_embeddings()
    states: dict[str, torch.Tensor] = {}
    hooks = []
    for name, module in base.model.named_modules():
        if not name or _OF_PEFT.search(name) or module is head:
            continue

        def keep(_: torch.nn.Module, __: object, output: object, name: str = name) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, torch.Tensor) and first.dim() == 3:
                states.setdefault(name, first.detach())

        hooks.append(module.register_forward_hook(keep))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _part(
    rows: "list[dict[str, torch.Tensor]]", name: str, path: LossPath, samples: "Sequence[Record]", index: int
) -> "torch.Tensor | None":
    """The states of one record in what a path has computed."""
    lengths = [len(sample["input_ids"]) for sample in samples]
    if path.one_record:
        return rows[index].get(name)
    states = rows[0].get(name)
    if states is None:
        return None
    if path.padding_free:
        start = sum(lengths[:index])
        return states[:, start : start + lengths[index]]
    return states[index : index + 1, : lengths[index]]


def _differs(own: "torch.Tensor", other: "torch.Tensor | None", bound: float) -> bool:
    if other is None or own.shape != other.shape:
        return False
    own, other = own.float(), other.float()
    return bool((own - other).norm() > bound * own.norm())


def _described(base: LoadedBase, name: str) -> str:
    """The outermost module that a module belongs to within its layer, by class and place."""
    match = re.match(r"(.*?\.\d+\.[^.]+)", name)
    place = match[1] if match else name
    return f"{type(base.model.get_submodule(place)).__name__} ({place})"
