"""Downloads, module trees, dataset statistics and records: what the engine reads without its GPU."""

import threading
from collections.abc import Iterator

from workbench.data.columns import FoundColumns
from workbench.data.facts import DataFacts, Example
from workbench.engine.client.protocol import ColumnsRequest, ExamplesRequest, FactsRequest
from workbench.engine.daemon.tree_builder import TreeBuilder
from workbench.engine.model.libraries import import_libraries
from workbench.models.skeleton import Skeleton
from workbench.progress import Report
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import parse
from workbench.storage.paths import Home


class Sources:
    """Operations that need no model, so they also work while the engine is busy. All may block: call them in a thread.

    Each raises :class:`~workbench.errors.WorkbenchError` if something cannot be found or read.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._trees = TreeBuilder()

    def fetch(self, model: ModelSection, report: Report, cancelled: threading.Event) -> None:
        """Download or convert a model."""
        from workbench.models.sources import fetch_model

        fetch_model(self._home, model, report, cancelled.is_set)

    def tree(self, model: ModelSection) -> Skeleton:
        """The module tree of a model."""
        return self._trees.skeleton_of(self._home, model)

    def facts(self, request: FactsRequest, report: Report, cancelled: threading.Event) -> Iterator[DataFacts]:
        """The statistics of a sample of the dataset, then those of all records."""
        recipe = parse(request.recipe)
        import_libraries()
        from workbench.data.dataset_stats import dataset_stats

        return dataset_stats(
            self._home, recipe, fetch=request.fetch, show=request.show, report=report, cancelled=cancelled.is_set
        )

    def examples(self, request: ExamplesRequest) -> list[Example]:
        """Formatted training text of some records."""
        recipe = parse(request.recipe)
        import_libraries()
        from workbench.data.dataset_stats import examples

        return examples(self._home, recipe, request.start, request.count, request.search, invalid=request.invalid)

    def columns(self, request: ColumnsRequest) -> FoundColumns:
        """The columns of the data."""
        recipe = parse(request.recipe)
        import_libraries()
        from workbench.data.dataset_stats import columns

        return columns(recipe)

    def close_if_idle(self) -> None:
        """Stop the helper process if it has not been used for a while."""
        self._trees.close_if_idle()

    def close(self) -> None:
        """End the helper process."""
        self._trees.close()
