"""Requests made from this process's recipes, with local paths made absolute: the engine has another working folder."""

import re
from collections.abc import Iterable
from pathlib import Path

from workbench.engine.client.protocol import ExamplesRequest, FactsRequest, ResumeRequest, TrainRequest
from workbench.planning.launch import Launch
from workbench.planning.queue import QueueRequest, RunRequest
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit


def train_request(recipe: Recipe, launch: Launch | None = None) -> TrainRequest:
    """Start a run of this recipe."""
    return TrainRequest(recipe=anchored(recipe).as_dict(), launch=_anchored_launch(launch))


def resume_request(run: str, launch: Launch | None = None) -> ResumeRequest:
    """Resume a run, named by id, prefix or folder."""
    return ResumeRequest(run=here(run) if "/" in run else run, launch=_anchored_launch(launch))


def facts_request(recipe: Recipe, *, fetch: bool = False, show: int = 3) -> FactsRequest:
    """Count the data of this recipe; see :class:`FactsRequest`."""
    return FactsRequest(recipe=anchored(recipe).as_dict(), fetch=fetch, show=show)


def examples_request(recipe: Recipe, start: int, count: int = 1, search: str = "") -> ExamplesRequest:
    """Records of this recipe as they are fed; see :class:`ExamplesRequest`."""
    return ExamplesRequest(recipe=anchored(recipe).as_dict(), start=start, count=count, search=search)


def enqueue_request(recipes: Iterable[Recipe], launch: Launch | None = None) -> QueueRequest:
    """Add these recipes to the queue."""
    return QueueRequest(action="add", runs=run_requests(recipes, launch))


def run_requests(recipes: Iterable[Recipe], launch: Launch | None = None) -> list[RunRequest]:
    """Recipes as the queue takes them."""
    return [RunRequest(recipe=anchored(recipe).as_dict(), launch=launch) for recipe in recipes]


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with local paths made absolute."""
    changes = {"model.source": here(recipe.model.source), "data.source": parts_here(recipe.data.source)}
    if recipe.output.dir:
        changes["output.dir"] = str(Path(recipe.output.dir).expanduser().absolute())
    return edit(recipe, changes)


def here(name: str) -> str:
    """The absolute path of what exists on this machine; any other name unchanged."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name and path.exists() else name


def parts_here(source: str) -> str:
    """As :func:`here`, for each part of a mix such as ``notes.jsonl*0.5 + more/``."""
    if Path(source).expanduser().exists():
        return here(source)
    parts = []
    for part in map(str.strip, re.split(r"\s\+\s", source)):
        name, star, weight = part.rpartition("*")
        is_weighted = star and not Path(part).expanduser().exists()
        parts.append(here(name.strip()) + star + weight if is_weighted else here(part))
    return " + ".join(parts)


def _anchored_launch(launch: Launch | None) -> Launch | None:
    return launch and launch.model_copy(update={"config_file": here(launch.config_file)})
