"""Finds the module tree of a recipe's model: in the catalog, on this machine, or from the hub."""

from pathlib import Path

from workbench.models.build import build_skeleton
from workbench.models.catalog import catalog_skeleton
from workbench.models.remote_code import check_code_is_allowed, remote_code
from workbench.models.skeleton import Skeleton
from workbench.models.sources import fetch_config
from workbench.models.token_rows import rows_for_tokenizer
from workbench.progress import Cancelled, Report
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home


def skeleton_in_catalog(model: ModelSection) -> Skeleton | None:
    """The module tree of a model in the shipped catalog; None for others. Needs no torch and no network.

    None also for a model whose embeddings are resized, which depends on its tokenizer.
    """
    if model.resize_embeddings or model.subfolder or Path(model.source).expanduser().exists():
        return None
    return catalog_skeleton(model.source)


def tree_in(folder: Path, model: ModelSection) -> Skeleton:
    """The module tree of a model from its folder, its embeddings resized if the recipe asks for it. Imports torch.

    Raises:
        WorkbenchError: transformers cannot build the model, or it needs code of its own that is not allowed.
    """
    check_code_is_allowed(folder, model)
    code = folder if model.trust_remote_code and remote_code(folder) else None
    return build_skeleton(folder, rows_for_tokenizer(folder) if model.resize_embeddings else None, code)


def skeleton_of(
    home: Home,
    model: ModelSection,
    progress: Report = lambda _: None,
    cancelled: Cancelled = lambda: False,
) -> Skeleton:
    """The module tree of any model. Imports torch; downloads the model's configuration if necessary.

    Raises:
        WorkbenchError: the configuration cannot be found, or transformers cannot build the model.
    """

    return skeleton_in_catalog(model) or tree_in(fetch_config(home, model, progress, cancelled), model)
