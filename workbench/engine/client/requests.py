"""Makes requests to the engine, with local paths made absolute: the engine has another working folder."""

from collections.abc import Iterable
from pathlib import Path

from workbench.engine.client.protocol import ColumnsRequest, ExamplesRequest, FactsRequest, ResumeRequest, TrainRequest
from workbench.planning.launch import Launch
from workbench.planning.queue import QueueRequest, RunRequest
from workbench.recipe.data_sources import exists, renamed, split_inner
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import edit


def train_request(recipe: Recipe, launch: Launch | None = None) -> TrainRequest:
    """The request to start a run of a recipe."""
    return TrainRequest(recipe=anchored(recipe).as_dict(), launch=_anchored_launch(launch))


def resume_request(run: str, launch: Launch | None = None) -> ResumeRequest:
    """The request to resume a run, named by id, prefix or folder."""
    return ResumeRequest(run=here(run) if "/" in run else run, launch=_anchored_launch(launch))


def facts_request(recipe: Recipe, *, fetch: bool = False, show: int = 3) -> FactsRequest:
    """The request for the statistics of a recipe's dataset; see :class:`FactsRequest`."""
    return FactsRequest(recipe=anchored(recipe).as_dict(), fetch=fetch, show=show)


def examples_request(
    recipe: Recipe, start: int, count: int = 1, search: str = "", *, invalid: bool = False
) -> ExamplesRequest:
    """Records of this recipe as they are fed; see :class:`ExamplesRequest`."""
    data = anchored(recipe).as_dict()
    return ExamplesRequest(recipe=data, start=start, count=count, search=search, invalid=invalid)


def columns_request(recipe: Recipe) -> ColumnsRequest:
    """Find the columns of this recipe's data."""
    return ColumnsRequest(recipe=anchored(recipe).as_dict())


def enqueue_request(recipes: Iterable[Recipe], launch: Launch | None = None) -> QueueRequest:
    """The request to add recipes to the queue."""
    return QueueRequest(action="add", runs=run_requests(recipes, launch))


def run_requests(recipes: Iterable[Recipe], launch: Launch | None = None) -> list[RunRequest]:
    """Recipes in the form that a :class:`QueueRequest` contains."""
    return [RunRequest(recipe=anchored(recipe).as_dict(), launch=launch) for recipe in recipes]


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with local paths made absolute."""
    changes: dict[str, object] = {"model.source": here(recipe.model.source), "data.source": sources_here(recipe.data)}
    if recipe.output.dir:
        changes["output.dir"] = str(Path(recipe.output.dir).expanduser().absolute())
    return edit(recipe, changes)


def here(name: str) -> str:
    """The absolute path of what exists on this machine; any other name unchanged."""
    return str(Path(name).expanduser().absolute()) if exists(name) else name


def sources_here(data: DataSection) -> str | list[dict[str, object]]:
    """The section's ``source``, its local paths made absolute as by :func:`here`; as plain data."""

    def source_here(name: str) -> str:
        path, inner = split_inner(name)
        return f"{here(path)}:{inner}" if inner else here(name)

    return renamed(data.source, source_here)


def _anchored_launch(launch: Launch | None) -> Launch | None:
    return launch and launch.model_copy(update={"config_file": here(launch.config_file)})
