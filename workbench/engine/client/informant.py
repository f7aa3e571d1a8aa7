"""Gets from the engine what the checks before a run need to know."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from workbench.data.facts import DataFacts
from workbench.engine.client.client import EngineClient
from workbench.engine.client.requests import facts_request
from workbench.models.skeleton import Skeleton
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.model import ModelSection


@dataclass(frozen=True)
class EngineInformant:
    """Implements :class:`~workbench.planning.start_checks.Informant` with an engine."""

    engine: EngineClient

    async def tree(self, model: ModelSection) -> Skeleton:
        """The module tree of a model."""
        return await self.engine.tree(model)

    def facts(self, recipe: Recipe, *, fetch: bool = False, show: int = 3) -> AsyncGenerator[Progress | DataFacts]:
        """Progress and statistics of a recipe's dataset."""
        return self.engine.facts(facts_request(recipe, fetch=fetch, show=show))
