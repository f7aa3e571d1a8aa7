"""What the exports to other tools share: their files, checkpoints by transformers' names, and what is unsupported."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from workbench.errors import WorkbenchError
from workbench.export.other_tools.imported_settings import short
from workbench.recipe.schema import Recipe, known_paths
from workbench.recipe.sections.training import TrainingSection
from workbench.recipe.text import as_yaml

_MAX_CHARACTERS = 1_000_000
_OFF_BELOW_ONE = ("training.max_steps", "training.eval_steps", "training.early_stopping_patience")

# Settings of training that TRL, Axolotl and LLaMA-Factory take over from transformers, and this recipe too: by their
# name there, the recipe's dotted key.
OF_TRANSFORMERS = {
    name: f"training.{name}"
    for name in (
        "max_steps", "gradient_accumulation_steps", "learning_rate", "weight_decay", "max_grad_norm", "adam_beta1",
        "adam_beta2", "adam_epsilon", "logging_steps", "save_total_limit", "seed", "torch_compile",
    )
}  # fmt: skip


def same_settings(recipe: Recipe, names: Mapping[str, str], rare: tuple[str, ...]) -> dict[str, object]:
    """The settings that only have another name there, as far as they are on.

    Args:
        names: by their name there, the recipe's dotted keys.
        rare: how those names begin that are written only where the setting is not at its default.
    """
    default = Recipe()
    values: dict[str, object] = {}
    for theirs, path in names.items():
        value = recipe.get(path)
        is_off = path in _OFF_BELOW_ONE and value < 1
        if value is not None and not is_off and not (theirs.startswith(rare) and value == default.get(path)):
            values[theirs] = value
    return values


def checkpoint_settings(training: TrainingSection) -> tuple[dict[str, object], list[str]]:
    """How often checkpoints are saved and which is kept, by transformers' names; also lists what differs.

    transformers' early stopping, and its choice of the best adapter, need each checkpoint to be at an evaluation.
    """
    every, save = training.eval_steps, training.save_steps
    keeps_best = training.keep == "best" and every > 0
    if not save:
        return {"save_strategy": "no"}, ["training.keep: 'best'; no checkpoints are saved"] if keeps_best else []
    at_evaluation = -(-save // every) * every if every and (keeps_best or training.early_stopping_patience) else save
    differs = (
        [f"training.save_steps: {save}; {at_evaluation}, a multiple of eval_steps"] if at_evaluation != save else []
    )
    saving: dict[str, object] = {"save_steps": at_evaluation}
    if keeps_best:
        saving["load_best_model_at_end"] = True
    return saving, differs


def unsupported_settings(recipe: Recipe, understood: Iterable[str]) -> list[str]:
    """The settings of a recipe that differ from their defaults and that the other tool does not understand."""
    default, known = Recipe(), set(understood)
    return [
        f"{path}: {short(recipe.get(path))}"
        for path in known_paths()
        if path not in known and recipe.get(path) != default.get(path)
    ]


def read_text(file: Path) -> str:
    """Read another tool's file as text.

    Raises:
        WorkbenchError: the file cannot be read.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            text = stream.read(_MAX_CHARACTERS + 1)
        if len(text) > _MAX_CHARACTERS:
            raise ValueError("it is too large for a configuration")
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    return text


def read_settings(file: Path) -> dict[str, object]:
    """Read another tool's YAML or JSON file.

    Raises:
        WorkbenchError: the file cannot be read, or is not a mapping of settings.
    """
    text = read_text(file)
    try:
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("it has no settings")
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise _unreadable(file, error) from None
    return {str(key): value for key, value in values.items()}


def _unreadable(file: Path, error: Exception) -> WorkbenchError:
    reason = " ".join(str(error).split())[:200]
    return WorkbenchError(
        f"{file} cannot be read: {reason}.",
        "Give a file of Axolotl, LLaMA-Factory, TRL, ms-swift or torchtune, a notebook, or an adapter_config.json.",
        kind="recipe",
    )


def resolve_path(source: str, folder: Path) -> str:
    """Resolve a path relative to ``folder`` if it exists; return anything else, such as a hub id, unchanged."""
    path = Path(source).expanduser()
    beside = path if path.is_absolute() else folder / path
    return str(beside.resolve()) if beside.exists() else source


def to_yaml(values: Mapping[str, object], about: str) -> str:
    """Write settings as YAML, with ``about`` as a comment in the first line."""
    return f"# {about}\n" + as_yaml(values)
