"""Imports a recipe from the file of another tool: finds out which tool it is of."""

from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.other_tools.from_axolotl import from_axolotl
from workbench.export.other_tools.from_llamafactory import from_llamafactory
from workbench.export.other_tools.from_notebook import SUFFIXES, from_notebook
from workbench.export.other_tools.from_peft import FILE, from_peft
from workbench.export.other_tools.from_swift import from_swift, is_swift
from workbench.export.other_tools.from_torchtune import from_torchtune, is_torchtune
from workbench.export.other_tools.from_trl import from_trl, is_trl
from workbench.export.other_tools.keys import read_settings
from workbench.export.other_tools.swift_script import SUFFIXES as SCRIPTS
from workbench.export.other_tools.swift_script import from_script
from workbench.recipe.schema import Recipe


def import_settings(file: Path) -> tuple[Recipe, list[str]]:
    """Convert another tool's file to a recipe; also lists its settings that a recipe does not support.

    Args:
        file: a YAML file of Axolotl, LLaMA-Factory, TRL's command line or torchtune, ms-swift's arguments as a YAML or
            JSON file or a shell script, a notebook or Python script for Unsloth or TRL, or PEFT's
            ``adapter_config.json`` or its folder.

    Raises:
        WorkbenchError: the file is from none of these, trains no adapter, or has values that a recipe does not allow.
    """
    if (file / FILE).is_file():
        file = file / FILE
    if file.suffix in SUFFIXES:
        return from_notebook(file)
    if file.suffix in SCRIPTS:
        return from_script(file)
    values = read_settings(file)
    folder = file.resolve().parent
    if "peft_type" in values:
        return from_peft(values, folder, str(file))
    if is_torchtune(values):
        return from_torchtune(values, file)
    if "base_model" in values:
        return from_axolotl(values, folder, str(file))
    if is_trl(values):
        return from_trl(values, folder, str(file))
    if "model_name_or_path" in values:
        return from_llamafactory(values, folder, str(file))
    if is_swift(values):
        return from_swift(values, folder, str(file))
    if "peft_config" in values and "model" in values:
        raise WorkbenchError(
            f"{file} is of LLaMA-Factory's v1 (peft_config), which names the objective in its command, not in a file.",
            "Give the file of its stable version, with model_name_or_path and stage.",
            kind="recipe",
        )
    raise WorkbenchError(
        f"{file} is not an Axolotl (no base_model), LLaMA-Factory or TRL (no model_name_or_path), ms-swift (no model "
        "with tuner_type or dataset) or torchtune (no model._component_) configuration.",
        "Give such a file, a notebook, or an adapter_config.json. Recipes need no import.",
        kind="recipe",
    )
