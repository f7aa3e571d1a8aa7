"""The settings in which two recipes differ, and the difference in words."""

from collections.abc import Mapping

from workbench.recipe.schema import Recipe
from workbench.recipe.sections.adapter import AdapterSection
from workbench.recipe.text import as_flow_yaml

_LONGEST_VALUE = 32
# What a key that a recipe leaves out stands for.
_LEFT_OUT = {
    "adapter.lora_alpha": "2·r",
    "adapter.lora_dropout": f"{AdapterSection.model_fields['lora_dropout'].default:g} (default)",
}


def recipe_differences(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The dotted keys in which two recipes, as plain data, differ, with both values; ``output.name`` is ignored."""
    changed = all_differences(before, after)
    changed.pop("output.name", None)
    return changed


def all_differences(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The dotted keys in which two recipes, as plain data, differ, with both values; None for a missing one."""
    changed: dict[str, tuple[object, object]] = {}
    for section in dict.fromkeys((*before, *after)):
        old, new = _section(before, section), _section(after, section)
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name):
                changed[f"{section}.{name}"] = (old.get(name), new.get(name))
    return changed


def change_text(before: Recipe, after: Recipe, most: int = 3) -> str:
    """Say in words what changed from one recipe to another: ``r 16 → 8, learning_rate 2e-4 → 1e-4 and 2 more``."""
    changed = all_differences(before.as_dict(), after.as_dict())
    parts = [
        f"{path.partition('.')[2] if path != 'model.source' else 'model'} "
        f"{value_text(old, path)} → {value_text(new, path)}"
        for path, (old, new) in changed.items()
    ]
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def value_text(value: object, path: str = "") -> str:
    """Write a value as in a recipe, on one line and shortened: ``2e-4``, ``[q_proj, v_proj]``, ``none``.

    Args:
        path: its key, which says what a missing value stands for, such as 2·r for ``adapter.lora_alpha``.
    """
    match value:
        case None:
            return _LEFT_OUT.get(path, "none")
        case bool():
            return "on" if value else "off"
        case float() if 0 < abs(value) < 0.01:
            mantissa, _, exponent = f"{value:e}".partition("e")
            return f"{float(mantissa):g}e{int(exponent)}"
        case float():
            return f"{value:g}"
        case list() | dict():
            text = as_flow_yaml(value) if value else "none"
        case _:
            text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _section(recipe: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = recipe.get(name)
    return section if isinstance(section, dict) else {}
