"""The module tree as text and numbers: what the recipe does to each module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from screens.forms.fields import ranges_text
from workbench.estimate.footprint import Storage, is_quantised, module_bytes, stays_wide

if TYPE_CHECKING:
    from workbench.estimate.adapter.plan import AdaptedModule, AdapterPlan
    from workbench.models.skeleton import Module, Skeleton
    from workbench.recipe.schema import Recipe

_QUANTISED_CLASS = {"nf4": "Linear4bit", "fp4": "Linear4bit", "int8": "Linear8bitLt"}
_SHORT_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}


@dataclass(frozen=True)
class Place:
    """A module at its place in the tree; a folded one represents all its copies.

    Attributes:
        path: full name with ``*`` for the index of a folded list, as in the adapter plan.
        copies: how often the model has this module.
        parent: last name of the parent module, to tell equal names apart.
        frozen: what the part that it is in is, such as ``vision``, if that part gets no adapter; else empty.
    """

    path: str
    module: Module
    copies: int
    parent: str
    frozen: str = ""

    @property
    def children(self) -> Iterator[Place]:
        for child in self.module.children:
            part = "*" if child.indices else child.name
            path = f"{self.path}.{part}" if self.path else part
            frozen = self.frozen or child.facts.get("frozen", "")
            yield Place(path, child, self.copies * child.count, self.module.name or self.parent, frozen)

    @property
    def name(self) -> str:
        """``q_proj``, or ``(0–27)`` for a folded list."""
        return f"({self.module.label})" if self.module.indices else self.module.name

    @property
    def is_layer(self) -> bool:
        """Whether it can get an adapter."""
        return self.module.kind != "other"

    @property
    def parameters(self) -> int:
        """The parameters of all copies."""
        return self.module.parameters * self.copies

    def walk(self) -> Iterator[Place]:
        yield self
        for child in self.children:
            yield from child.walk()


def root_of(skeleton: Skeleton) -> Place:
    """Return the place of the whole model."""
    return Place("", skeleton.root, 1, "")


def shape_text(place: Place) -> str:
    """Return ``576 → 192`` for a linear layer, ``49152 × 576`` for other weights, and nothing without weights."""
    weight = next((tensor for tensor in place.module.tensors if not tensor.is_buffer), None)
    if weight is None:
        return ""
    if place.module.kind == "linear":
        return f"{weight.shape[1]} → {weight.shape[0]}"
    if place.module.kind == "conv1d":
        return f"{weight.shape[0]} → {weight.shape[1]}"
    return " × ".join(map(str, weight.shape))


def class_text(place: Place, recipe: Recipe) -> str:
    """Return the class that the module has when the recipe runs."""
    if is_quantised(place.module, storage_of(recipe)):
        return _QUANTISED_CLASS[recipe.quantization.method]
    return place.module.class_name


def dtype_text(place: Place, recipe: Recipe) -> str:
    """Return the dtype of the weights; ``tied`` if another module stores them."""
    tensors = [tensor for tensor in place.module.tensors if not tensor.is_buffer]
    if not tensors:
        return ""
    if all(tensor.tied_to for tensor in tensors):
        return "tied"
    if is_quantised(place.module, storage_of(recipe)):
        return recipe.quantization.method
    return _SHORT_DTYPES.get(tensors[0].dtype, tensors[0].dtype)


def is_left_alone(place: Place, recipe: Recipe) -> bool:
    """Return whether a weight stays in 16 bits although the recipe quantizes."""
    return stays_wide(place.module, storage_of(recipe))


def bytes_below(skeleton: Skeleton, place: Place, recipe: Recipe) -> tuple[int, int]:
    """Return the bytes of a module, its submodules and copies: in 16 bits, and as the recipe stores them."""
    before = after = 0
    for inner in place.walk():
        size = module_bytes(skeleton, inner.path, inner.module, storage_of(recipe))
        before += size.in_16_bit * inner.copies
        after += size.stored * inner.copies
    return before, after


def storage_of(recipe: Recipe) -> Storage:
    """Return how the base is stored; bf16 if it is not quantized, the dtype in which module trees are built."""
    return Storage(recipe.quantization.method, recipe.quantization.double_quant, "bfloat16")


def adapted_at(plan: AdapterPlan | None, place: Place) -> list[AdaptedModule]:
    """Return what the adapter adds here: one entry for a layer, one per parameter for fused experts."""
    if plan is None:
        return []
    return [
        one
        for one in plan.modules
        if place.path == (one.path.rpartition(".")[0] if one.kind == "parameter" else one.path)
    ]


# -- targets by name -------------------------------------------------------------------------------------------------


def target_name(skeleton: Skeleton, place: Place) -> str:
    """Return the name that targets a layer: its last part, or the last two if others share the last part."""
    name = place.module.name
    layers = (other for other in root_of(skeleton).walk() if other.is_layer and not other.frozen)
    parents = {other.parent for other in layers if other.module.name == name}
    return name if len(parents) == 1 else f"{place.parent}.{name}"


def linear_names(skeleton: Skeleton, below: Place | None = None) -> list[str]:
    """Return the names of the linear layers below a place, without the output layer and frozen parts."""
    top = below or root_of(skeleton)
    layers = (place for place in top.walk() if place.module.kind in ("linear", "conv1d") and not place.frozen)
    return list(dict.fromkeys(target_name(skeleton, place) for place in layers if place.path != skeleton.output))


def toggled_targets(skeleton: Skeleton, recipe: Recipe, place: Place) -> str | list[str] | None:
    """Return ``target_modules`` with a layer, or all linear layers below a module, added or removed.

    Args:
        place: a layer, or a module with layers below it.

    Returns:
        None if there is nothing to target, or the targets are a regular expression.
    """
    now = recipe.adapter.target_modules
    everything = linear_names(skeleton)
    if isinstance(now, str) and now != "all-linear":
        return None
    chosen = list(everything) if isinstance(now, str) else list(now)
    names = [target_name(skeleton, place)] if place.is_layer else linear_names(skeleton, place)
    if not names:
        return None
    if all(name in chosen or name.rpartition(".")[2] in chosen for name in names):
        drop = {*names, *(name.rpartition(".")[2] for name in names)}
        chosen = [name for name in chosen if name not in drop]
    else:
        chosen += [name for name in names if name not in chosen]
    if set(chosen) == set(everything) and "moe_names" not in skeleton.root.facts:
        return "all-linear"
    return chosen


def layers_text(recipe: Recipe) -> str:
    """Return which layers get adapters; an empty string for all."""
    layers = recipe.adapter.layers_to_transform
    return f"only layers {ranges_text(layers)}" if layers is not None else ""
