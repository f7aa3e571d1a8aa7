"""Converts module trees to JSON and back. Folded layers stay folded: a 70B model takes 3 kB."""

from collections.abc import Mapping
from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.skeleton import Module, Skeleton, Tensor

FORMAT = 1
"""Version of the format; incremented when a field changes its meaning, so that old files are rebuilt, not misread."""


def skeleton_to_json(skeleton: Skeleton) -> dict[str, object]:
    """Convert a module tree to a JSON object that :func:`skeleton_from_json` reads. Default values are left out."""
    return {
        "format": FORMAT,
        "architecture": skeleton.architecture,
        "model_type": skeleton.model_type,
        "output": skeleton.output,
        "config": skeleton.config,
        "root": _module_to_json(skeleton.root),
    }


def skeleton_from_json(data: Mapping[str, Any]) -> Skeleton:
    """Convert a JSON object back to a module tree.

    Raises:
        WorkbenchError: the object was written by another version of the workbench, or is damaged.
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


def _module_to_json(module: Module) -> dict[str, object]:
    data: dict[str, object] = {"class": module.class_name}
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


def _module_from_json(data: Mapping[str, Any]) -> Module:
    return Module(
        name=data.get("name", ""),
        class_name=data["class"],
        kind=data.get("kind", "other"),
        tensors=tuple(_tensor_from_json(tensor) for tensor in data.get("tensors", ())),
        children=tuple(_module_from_json(child) for child in data.get("children", ())),
        indices=tuple(index for first, last in data.get("indices", ()) for index in range(first, last + 1)),
        facts=data.get("facts", {}),
    )


def _tensor_to_json(tensor: Tensor) -> dict[str, object]:
    data: dict[str, object] = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
    if tensor.is_buffer:
        data["buffer"] = True
    if tensor.tied_to is not None:
        data["tied_to"] = tensor.tied_to
    return data


def _tensor_from_json(data: Mapping[str, Any]) -> Tensor:
    return Tensor(
        name=data["name"],
        shape=tuple(data["shape"]),
        dtype=data["dtype"],
        is_buffer=data.get("buffer", False),
        tied_to=data.get("tied_to"),
    )


def _runs(indices: tuple[int, ...]) -> list[list[int]]:
    """Write ``(0, 1, 2, 5)`` as ``[[0, 2], [5, 5]]``: the first and last of each run of consecutive numbers."""

    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return runs
