"""Builds module trees for the screens in a process of their own, never in the engine's.

transformers sets PyTorch's default dtype while it builds a model and restores it afterwards. The default belongs to
the whole process: a tree built in one thread while another thread loads a base model can restore the wrong dtype, and
from then on that engine would compute its loss in bfloat16. A run's results would depend on when someone opened the
Architecture tab.
"""

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.skeleton import Skeleton
from workbench.models.sources import fetch_config
from workbench.models.trees import skeleton_in_catalog, tree_in
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home

# After so long without a request the helper is stopped, to free its memory.
_IDLE_SECONDS = 120.0


class TreeBuilder:
    """Builds trees in one helper process, which is started when first needed and ends with this one.

    Methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._last_used = 0.0

    def skeleton_of(self, home: Home, model: ModelSection) -> Skeleton:
        """The tree of any model: from the catalog, or else built, for which its configuration is downloaded if needed.

        Raises:
            WorkbenchError: the configuration cannot be obtained, transformers cannot build the model, or the helper
                process died.
        """
        if shipped := skeleton_in_catalog(model):
            return shipped
        folder = fetch_config(home, model, lambda progress: None, lambda: False)
        try:
            return self._submit(folder, model).result()
        except BrokenProcessPool as error:
            self.close()
            raise WorkbenchError(
                f"The helper process that reads the layers of {model.source} ended unexpectedly.",
                "Try again. If host memory is full, free some first.",
                kind="child_died",
            ) from error

    def close_if_idle(self) -> None:
        """End the helper if nobody has asked for a tree for two minutes."""
        if time.monotonic() - self._last_used > _IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """End the helper; the next tree starts another one."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            # Pending builds still finish.
            pool.shutdown(wait=False)

    def _submit(self, folder: Path, model: ModelSection) -> Future[Skeleton]:
        # Under the lock: between opening and submitting nobody may close the pool.
        with self._lock:
            self._last_used = time.monotonic()
            if self._pool is None:
                # Spawned: a fork would copy the locks of the engine's threads and its CUDA context.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start_helper)
            return self._pool.submit(tree_in, folder, model)


def _start_helper() -> None:
    """In the helper: take no GPU memory, and end when the engine is gone, however it ended."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threading.Thread(target=_end_with_engine, daemon=True).start()


def _end_with_engine() -> None:
    engine = multiprocessing.parent_process()
    assert engine is not None
    engine.join()
    os._exit(1)
