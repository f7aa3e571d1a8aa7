"""A :class:`~workbench.models.skeleton.Skeleton` as JSON and back. Folded layers stay folded: a 70B model is 3 kB."""

from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.skeleton import Module, Skeleton, Tensor

FORMAT = 1
"""Raised when the meaning of a field changes, so that old cached files are built again instead of misread."""


def skeleton_to_json(skeleton: Skeleton) -> dict[str, Any]:
    """Plain data: what :func:`skeleton_from_json` reads, without the fields that have their default value."""
    return {
        "format": FORMAT,
        "architecture": skeleton.architecture,
        "model_type": skeleton.model_type,
        "output": skeleton.output,
        "config": skeleton.config,
        "root": _module_to_json(skeleton.root),
    }


def skeleton_from_json(data: dict[str, Any]) -> Skeleton:
    """The skeleton that ``data`` describes.

    Raises:
        WorkbenchError: the data was written by another version of the workbench, or is damaged.
    """
    if data.get("format") != FORMAT:
        raise WorkbenchError(
            f"This module tree has format {data.get('format')!r}; this version reads format {FORMAT}.",
            "Delete the file; it is rebuilt from the model's config.json.",
            kind="skeleton_format",
        )
    try:
        return Skeleton(
            architecture=data["architecture"],
            model_type=data["model_type"],
            root=_module_from_json(data["root"]),
            output=data["output"],
            config=data["config"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WorkbenchError(
            f"This module tree is damaged: {error!r}.",
            "Delete the file; it is rebuilt from the model's config.json.",
            kind="skeleton_format",
        ) from error


def _module_to_json(module: Module) -> dict[str, Any]:
    data: dict[str, Any] = {"class": module.class_name}
    if module.indices:
        data["indices"] = _runs(module.indices)
    else:
        data["name"] = module.name
    if module.kind != "other":
        data["kind"] = module.kind
    if module.facts:
        data["facts"] = module.facts
    if module.tensors:
        data["tensors"] = [_tensor_to_json(tensor) for tensor in module.tensors]
    if module.children:
        data["children"] = [_module_to_json(child) for child in module.children]
    return data


def _module_from_json(data: dict[str, Any]) -> Module:
    return Module(
        name=data.get("name", ""),
        class_name=data["class"],
        kind=data.get("kind", "other"),
        tensors=tuple(_tensor_from_json(tensor) for tensor in data.get("tensors", ())),
        children=tuple(_module_from_json(child) for child in data.get("children", ())),
        indices=tuple(index for first, last in data.get("indices", ()) for index in range(first, last + 1)),
        facts=data.get("facts", {}),
    )


def _tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    data: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
    if tensor.is_buffer:
        data["buffer"] = True
    if tensor.tied_to is not None:
        data["tied_to"] = tensor.tied_to
    return data


def _tensor_from_json(data: dict[str, Any]) -> Tensor:
    return Tensor(
        name=data["name"],
        shape=tuple(data["shape"]),
        dtype=data["dtype"],
        is_buffer=data.get("buffer", False),
        tied_to=data.get("tied_to"),
    )


def _runs(indices: tuple[int, ...]) -> list[list[int]]:
    """``(0, 1, 2, 5)`` as ``[[0, 2], [5, 5]]``: first and last of each stretch without a gap."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return runs
