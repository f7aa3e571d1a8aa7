"""A recipe out of another tool's configuration, whichever of the known ones it is."""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.axolotl import from_axolotl
from workbench.export.other_tools.keys import read_settings
from workbench.export.other_tools.llamafactory import from_llamafactory
from workbench.recipe.schema import Recipe


def import_settings(file: Path) -> tuple[Recipe, list[str]]:
    """The recipe, and what of the file has no counterpart in it.

    Raises:
        WorkbenchError: the file is neither Axolotl's nor LLaMA-Factory's, trains no LoRA adapter, or holds values that
            no recipe can have.
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
