"""Reads the recipe in a run folder, also one that an older version wrote."""

from pathlib import Path

from workbench.recipe.schema import AUTO, Recipe
from workbench.recipe.text import parse, read_data
from workbench.runs.history import read_history

_COMPILE = "training.torch_compile"


def read_run_recipe(file: Path, journal: Path) -> Recipe:
    """The recipe that a run was started with.

    ``training.torch_compile`` could once be ``auto``: such a run has what its journal says was chosen, else false.

    Raises:
        WorkbenchError: the file is missing or unreadable, or the recipe in it has mistakes.
    """
    data = read_data(file)
    training = data.get("training") if isinstance(data, dict) else None
    if isinstance(training, dict) and training.get("torch_compile") == AUTO:
        training["torch_compile"] = read_history(journal, 0).chosen.get(_COMPILE) is True
    return parse(data, origin=str(file))
