"""What all sections of the recipe share: a base class, fields with help, and the value ``auto``."""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Auto = Literal["auto"]
AUTO: Auto = "auto"
"""The machine chooses the value, see :mod:`workbench.estimate.fastest`. :mod:`workbench.recipe.resolved` has recipes in
which that is done."""

Offload = Literal["offload"]
OFFLOAD: Offload = "offload"
"""Activations are recomputed from checkpoints that lie in host memory until the backward pass."""

T = TypeVar("T")


def setting(
    default: T,
    text: str,
    *,
    up: str = "",
    unit: str = "",
    steps: tuple[float, ...] = (),
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    pattern: str | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A pydantic field with the help that the form shows.

    Args:
        text: what the value means, in one sentence.
        up: the effect of a higher value.
        unit: the unit of the value; empty for a plain number or a choice.
        steps: values that the arrow keys step through.
        ge, gt, le, lt, min_length, pattern: bounds, as in pydantic's ``Field``.
        choices: the allowed values of a text, where its type does not list them.
    """
    # Bounds that are None are left out: pydantic would try to apply them to types that have no such bound.
    given = {"ge": ge, "gt": gt, "le": le, "lt": lt, "min_length": min_length, "pattern": pattern}
    bounds: dict[str, Any] = {name: bound for name, bound in given.items() if bound is not None}
    extra: dict[str, Any] = {"unit": unit, "up": up, "steps": list(steps)}
    if choices:
        extra["enum"] = list(choices)
    field: T
    if isinstance(default, list | dict):
        # A new list or dict for every recipe.
        field = Field(default_factory=default.copy, description=text, json_schema_extra=extra, **bounds)
    else:
        field = Field(default, description=text, json_schema_extra=extra, **bounds)
    return field


class Section(BaseModel):
    """A part of the recipe. Unknown keys are errors, types are not coerced, values cannot be changed."""

    # protected_namespaces: `model_…` names are pydantic's by default, and `model` is ours.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)


EXCLUDED = "excluded"
"""Type of the validation error for settings that exclude each other. Its context holds path, given and allowed."""


def excluded(path: str, given: str, allowed: str) -> PydanticCustomError:
    """The validation error for a setting that another one excludes."""
    context = {"path": path, "given": given, "allowed": allowed}
    return PydanticCustomError(EXCLUDED, "{path}: {given}; {allowed}", context)
