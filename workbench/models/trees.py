"""The module tree of whatever a recipe names: from the catalog, from a model on this machine, or from the hub."""

from collections.abc import Callable
from pathlib import Path

from workbench.models.build import build_skeleton
from workbench.models.catalog import catalog_skeleton
from workbench.models.skeleton import Skeleton
from workbench.models.sources import fetch_config
from workbench.progress import Progress
from workbench.recipe.schema import ModelSection
from workbench.storage.paths import Home


def known_skeleton(model: ModelSection) -> Skeleton | None:
    """The tree if the catalog holds it: no torch, no disk beyond the catalog's own file, no network."""
    if Path(model.source).expanduser().exists():
        return None
    return catalog_skeleton(model.source)


def skeleton_of(
    home: Home,
    model: ModelSection,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Skeleton:
    """The tree of any model; its configuration is downloaded where it is nowhere on this machine. Imports torch.

    Raises:
        WorkbenchError: no configuration can be had, or transformers cannot build the model.
    """
    return known_skeleton(model) or build_skeleton(fetch_config(home, model, progress, cancelled))
