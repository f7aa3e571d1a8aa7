"""Exports a recipe that has not been trained, as a script or another tool's configuration: a run without a journal."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.export.request import WITHOUT_WEIGHTS, Target
from workbench.recipe.schema import Recipe
from workbench.recipe.text import to_yaml
from workbench.runs.folder import RunFolder


@contextmanager
def folder_of_recipe(recipe: Recipe, target: Target) -> Iterator[RunFolder]:
    """Within, a temporary run folder with nothing but the recipe, named after it.

    Raises:
        WorkbenchError: the target needs trained weights.
    """
    if target not in WITHOUT_WEIGHTS:
        raise WorkbenchError(
            f"The export {target} needs a trained run; a recipe alone has no weights.",
            f"Train it first, or export {', '.join(WITHOUT_WEIGHTS)}.",
            kind="no_adapter",
        )
    with tempfile.TemporaryDirectory(prefix="loraworkbench-recipe-") as temporary:
        folder = Path(temporary) / recipe.output.name
        folder.mkdir()
        run = RunFolder(folder)
        run.recipe_file.write_text(to_yaml(recipe), encoding="utf-8")
        yield run
