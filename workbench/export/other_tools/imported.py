"""Imports a recipe from an Axolotl or LLaMA-Factory configuration file."""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.axolotl import from_axolotl
from workbench.export.other_tools.keys import read_settings
from workbench.export.other_tools.llamafactory import from_llamafactory
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
    raise WorkbenchError(
        f"{file} is not an Axolotl (no base_model) or LLaMA-Factory (no model_name_or_path) configuration.",
        "Give an Axolotl or LLaMA-Factory file. Recipes need no import.",
        kind="recipe",
    )
