"""The texts around the module tree: totals above it, and details of the selected module below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from screens.architecture.tree_rows import (
    Place,
    adapted_at,
    bytes_below,
    class_text,
    dtype_text,
    is_left_alone,
    layers_text,
    shape_text,
)
from screens.shell.header import base_word, targets_word
from screens.widgets.glyphs import GLYPHS
from screens.widgets.key_texts import key
from screens.widgets.plain import plain
from workbench.adapters.registry import has_rank, method_of
from workbench.errors import WorkbenchError
from workbench.units import file_size

if TYPE_CHECKING:
    from workbench.estimate.adapter.plan import AdapterPlan
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


def absence_text(recipe: Recipe, error: WorkbenchError | None) -> Content:
    """Return why there is no tree: ``error``, with what to do, or that the configuration is still being read."""
    if error is None:
        return Content.styled(f"Reading the configuration of {plain(recipe.model.source)} …", "$muted")
    return Content.assemble(
        (plain(error.message), "$error"),
        " ",
        plain(error.cure),
        (f"  Press {key('tab.models')} to choose another model.", "$accent"),
    )


def totals_text(skeleton: Skeleton, recipe: Recipe, plan: AdapterPlan | WorkbenchError | None) -> Content:
    """Return the size of the model, and of the adapter or why PEFT refuses it."""
    dot = f" {GLYPHS.separator} "
    head = Content.assemble(
        (plain(skeleton.architecture), "bold"),
        (f"{dot}{skeleton.parameters:,} parameters{dot}base {base_word(recipe, skeleton)}", "$muted"),
    )
    if isinstance(plan, WorkbenchError):
        return Content.assemble(head, "\n", (plain(plan), "$error"))
    assert plan is not None
    count = sum(one.count for one in plan.modules)
    return Content.assemble(
        head,
        "\n",
        (f"adapter {plan.trainable_parameters:,}", "bold $accent"),
        (f" trainable, {plan.trainable_percent:.2f} %{dot}on {count} layers{dot}{file_size(plan.file_bytes)}", ""),
        (f"{dot}{plain(targets_word(recipe))}", "$muted"),
        (f"{dot}{layers}" if (layers := layers_text(recipe)) else "", "$warning"),
    )


def details_text(skeleton: Skeleton, recipe: Recipe, plan: AdapterPlan | None, place: Place, *, wide: bool) -> Content:
    """Return up to three lines about a module: its facts, and what the adapter adds to it or could add."""
    dot = f" {GLYPHS.separator} "
    copies = f"{place.copies} × " if place.copies > 1 else ""
    before, after = bytes_below(skeleton, place, recipe)
    size = f"{file_size(before)} → {file_size(after)}" if after != before else file_size(after)
    facts = [
        f"{copies}{plain(class_text(place, recipe))}" if wide else "",
        shape_text(place),
        dtype_text(place, recipe),
        size if before else "",
    ]
    lines = [
        Content.assemble((plain(place.path) or "the whole model", "bold"), "  ",
                         (dot.join(fact for fact in facts if fact), "$muted")),
    ]  # fmt: skip
    for one in adapted_at(plan, place):
        shapes = [f"{tensor.label} {'×'.join(map(str, tensor.shape))}" for tensor in one.tensors]
        rank = [f"r {one.r}"] if has_rank(recipe.adapter) else []
        lines.append(
            Content.styled(dot.join((*shapes, *rank, f"{one.count} × {one.parameters:,} trainable")), "$accent")
        )
    if place.frozen:
        lines.append(
            Content.styled(f"Frozen ({plain(place.frozen)}): training on text gives it no adapter.", "$warning")
        )
    elif is_left_alone(place, recipe):
        lines.append(Content.styled("Stays in 16 bits: transformers quantizes only plain linear layers.", "$warning"))
    elif place.is_layer and len(lines) == 1:
        lines.append(
            Content.styled(
                f"Press {key('architecture.toggle')} to target it: {method_of(recipe.adapter.method).label} trains it.",
                "$muted",
            )
        )
    return Content("\n").join(lines[:3])
