"""One recipe at several values of its knobs: a run for each of them, or for each combination."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment

RANKS: Mapping[str, Sequence[Any]] = {"adapter.r": (8, 16, 32, 64)}
"""What is swept where nothing else is said."""

_MOST = 200
_LONGEST_NAME = 64
# Knobs whose own name is long in the name of a run.
_SHORT = {
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
    """One run of a sweep: what was set, and the recipe that came of it."""

    changes: Mapping[str, Any]
    recipe: Recipe


def parse_over(text: str) -> tuple[str, list[Any]]:
    """``adapter.r=8,16,32`` as the knob and its values, each once. A value that is a list is written ``[a, b]``.

    Raises:
        WorkbenchError: it is none.
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
    return path, [value for index, value in enumerate(listed) if value not in listed[:index]]


def sweep(recipe: Recipe, over: Mapping[str, Sequence[Any]] = RANKS) -> list[Variant]:
    """The recipe at every combination of these values, the last knob turning fastest.

    A linked ``lora_alpha`` stays linked. Each run has a name of its own, made of the recipe's and the values.

    Raises:
        WorkbenchError: there are too many, or one of them is no recipe; with every mistake in it.
    """
    if "output.name" in over:
        raise WorkbenchError("Run names are generated from the values.", "Remove output.name.")
    count = 1
    for values in over.values():
        count *= len(values)
    if count > _MOST:
        raise WorkbenchError(f"This makes {count:,} runs.", f"Queue at most {_MOST} at once.")
    combinations = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    names = _names(recipe.output.name, combinations)
    return [
        Variant(changes, edit(recipe, {**changes, "output.name": name}))
        for changes, name in zip(combinations, names, strict=True)
    ]


def _names(name: str, combinations: Sequence[Mapping[str, Any]]) -> list[str]:
    """``run-r8-lr0.0001``; where two would be the same, or too long, a number tells them apart."""
    made: list[str] = []
    for changes in combinations:
        ends = "".join(f"-{_word(path, value)}" for path, value in changes.items())
        wanted = f"{name[: max(_LONGEST_NAME - len(ends), 8)]}{ends}"[:_LONGEST_NAME]
        made.append(wanted if wanted not in made else f"{wanted[:58]}-{len(made) + 1}")
    return made


def _word(path: str, value: Any) -> str:
    knob = path.partition(".")[2]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{_SHORT.get(knob, knob.replace('_', '-'))}{text}").strip("-.")
