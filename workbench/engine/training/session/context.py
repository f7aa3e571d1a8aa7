"""The objects that all parts of a run share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from workbench.engine.steering.controls import Controls
from workbench.engine.steering.ranks import Ranks
from workbench.engine.storage.disk_full_retry import RetryingJournal
from workbench.engine.training.run_warnings import RunWarnings
from workbench.progress import Report
from workbench.recipe.resolved import ResolvedRecipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """The objects that all parts of a run share.

    Attributes:
        report: called with progress for the engine's status and the journal.
        show: called with progress for the engine's status only.
    """

    home: Home
    run: RunFolder
    recipe: ResolvedRecipe
    journal: RetryingJournal
    warnings: RunWarnings
    controls: Controls
    report: Report
    show: Report
    ranks: Ranks

    def retry_while_full(self, work: Callable[[], T]) -> T:
        """Call a function that writes files, again and again while the disk is full; in all processes alike."""
        return self.journal.retry_while_full_on_all(self.ranks, work)
