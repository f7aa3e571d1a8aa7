"""The models and datasets that the runs of a home were started with."""

from collections.abc import Callable
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.runs.folder import all_runs
from workbench.storage.paths import Home

_RUNS_READ = 60
_MOST = 12


def sources_used(home: Home, source_of: Callable[[Recipe], str]) -> list[str]:
    """The sources of the newest runs, each once, without local paths that are gone.

    Args:
        source_of: the source in a recipe, such as ``data.source``.
    """
    found: dict[str, None] = {}
    for run in all_runs(home)[:_RUNS_READ]:
        try:
            source = source_of(run.recipe())
        except WorkbenchError:
            continue
        if not source.startswith("/") or Path(source).exists():
            found.setdefault(source)
    return list(found)[:_MOST]
