"""Reads the recipe in a run folder, also one written by an older version."""

from pathlib import Path

from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import AUTO
from workbench.recipe.text import parse, read_data
from workbench.runs.history import read_history

_COMPILE = "training.torch_compile"


def read_run_recipe(file: Path, journal: Path) -> Recipe:
    """Read the recipe that a run was started with.

    Older versions allowed ``training.torch_compile: auto``; it is replaced by the value that the run chose, or false.

    Raises:
        WorkbenchError: the file is missing, unreadable or not a valid recipe.
    """
    data = read_data(file)
    training = data.get("training") if isinstance(data, dict) else None
    if isinstance(training, dict) and training.get("torch_compile") == AUTO:
        training["torch_compile"] = read_history(journal, 0).chosen.get(_COMPILE) is True
    return parse(data, origin=str(file))
