"""Imports a recipe from an Axolotl or LLaMA-Factory configuration file."""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.from_axolotl import from_axolotl
from workbench.export.other_tools.from_llamafactory import from_llamafactory
from workbench.export.other_tools.keys import read_settings
from workbench.recipe.schema import Recipe


def import_settings(file: Path) -> tuple[Recipe, list[str]]:
    """Convert a configuration file to a recipe; also lists its settings that a recipe does not support.

    Raises:
        WorkbenchError: the file is from neither tool, does not train a LoRA adapter, or has values that a recipe does
            not allow.
    """

    values = read_settings(file)
    folder = file.resolve().parent
    if "base_model" in values:
        return from_axolotl(values, folder, str(file))
    if "model_name_or_path" in values:
        return from_llamafactory(values, folder, str(file))
    if "peft_config" in values and "model" in values:
        raise WorkbenchError(
            f"{file} is of LLaMA-Factory's v1 (peft_config), which names the objective in its command, not in a file.",
            "Give the file of its stable version, with model_name_or_path and stage.",
            kind="recipe",
        )
    raise WorkbenchError(
        f"{file} is not an Axolotl (no base_model) or LLaMA-Factory (no model_name_or_path) configuration.",
        "Give an Axolotl or LLaMA-Factory file. Recipes need no import.",
        kind="recipe",
    )
