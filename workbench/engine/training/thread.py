"""Trains a run in a background thread.

This needs no engine: a notebook or a test can start a run in the same way and wait with ``join()``.
"""

import threading
from collections.abc import Callable

from workbench.engine.model.base import LoadedBase
from workbench.engine.training.training import Training
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home


class TrainingThread(threading.Thread):
    """Runs a :class:`Training` in a background thread.

    Args:
        finished: called last, in this thread, after success and failure alike.
    """

    def __init__(
        self,
        home: Home,
        run: RunFolder,
        recipe: Recipe,
        base: LoadedBase | None = None,
        on_finished: "Callable[[TrainingThread], None] | None" = None,
        *,
        resume: bool = False,
    ) -> None:
        super().__init__(name=f"train {run.id}", daemon=True)
        self.training = Training(home, run, recipe, base, resume=resume)
        self.run_folder = run
        self.controls = self.training.controls
        self._on_finished = on_finished

    def run(self) -> None:
        try:
            self.training.run()
        finally:
            if self._on_finished:
                self._on_finished(self)

    @property
    def base(self) -> LoadedBase | None:
        return self.training.base

    @property
    def error(self) -> WorkbenchError | None:
        return self.training.error

    @property
    def progress(self) -> Progress | None:
        return self.training.progress
