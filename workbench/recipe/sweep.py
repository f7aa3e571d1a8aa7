"""Sweeps: makes one recipe per combination of setting values, each with its own run name."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment

RANKS: Mapping[str, Sequence[object]] = {"adapter.r": (8, 16, 32, 64)}
"""The default sweep."""

_MAX_RUNS = 200
_MAX_NAME_LENGTH = 64
# Abbreviations of setting names in run names.
_ABBREVIATIONS = {
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "learning_rate": "lr",
    "lr_scheduler_type": "schedule",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "per_device_train_batch_size": "batch",
    "gradient_accumulation_steps": "accumulation",
    "max_length": "length",
    "weight_decay": "decay",
    "warmup_ratio": "warmup",
    "init_lora_weights": "init",
}


@dataclass(frozen=True)
class Variant:
    """One run of a sweep: the values set, by dotted key, and the resulting recipe."""

    changes: Mapping[str, object]
    recipe: Recipe


def parse_over(text: str) -> tuple[str, list[object]]:
    """Parse ``adapter.r=8,16,32`` into the dotted key and its distinct values. A list as a value is written ``[a, b]``.

    Raises:
        WorkbenchError: the text does not have this form.
    """
    path, sign, values = text.partition("=")
    if not sign or not values.strip():
        raise WorkbenchError(
            f"{text.strip()} is not of the form setting=values.", "Write adapter.r=8,16,32,64.", kind="bad_request"
        )
    try:
        path, listed = parse_assignment(f"{path}=[{values}]")
    except WorkbenchError:
        raise WorkbenchError(
            f"The values of {path.strip()} cannot be read: {values}.",
            "Write adapter.r=8,16,32,64; quote text that contains commas.",
            kind="bad_request",
        ) from None
    assert isinstance(listed, list)
    return path, [value for index, value in enumerate(listed) if value not in listed[:index]]


def sweep(recipe: Recipe, over: Mapping[str, Sequence[object]] = RANKS) -> list[Variant]:
    """Make a recipe for every combination of values; the last setting varies fastest.

    A linked ``lora_alpha`` stays linked. Run names consist of the recipe's name and the values, and are unique.

    Args:
        over: the values to try, by dotted key.

    Raises:
        WorkbenchError: there are too many combinations.
        RecipeError: a value is not allowed; the error lists every mistake.
    """
    if "output.name" in over:
        raise WorkbenchError("Run names are generated from the values.", "Remove output.name.")
    count = 1
    for values in over.values():
        count *= len(values)
    if count > _MAX_RUNS:
        raise WorkbenchError(f"This makes {count:,} runs.", f"Queue at most {_MAX_RUNS} at once.")
    combinations = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    names = _names(recipe.output.name, combinations)
    return [
        Variant(changes, edit(recipe, {**changes, "output.name": name}))
        for changes, name in zip(combinations, names, strict=True)
    ]


def _names(base: str, combinations: Sequence[Mapping[str, object]]) -> list[str]:
    """Run names such as ``run-r8-lr0.0001``; a number is appended to one that would repeat another."""
    names: list[str] = []
    for changes in combinations:
        suffix = "".join(f"-{_name_part(path, value)}" for path, value in changes.items())
        name = f"{base[: max(_MAX_NAME_LENGTH - len(suffix), 8)]}{suffix}"[:_MAX_NAME_LENGTH]
        names.append(name if name not in names else f"{name[:58]}-{len(names) + 1}")
    return names


def _name_part(path: str, value: object) -> str:
    setting = path.partition(".")[2]
    label = _ABBREVIATIONS.get(setting, setting.replace("_", "-"))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{label}{text}").strip("-.")
