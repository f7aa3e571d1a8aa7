"""Module trees for the screens, built in a process of their own, never in the engine's.

transformers sets PyTorch's default number type while it makes a model, and puts the old one back afterwards. The
default belongs to the whole process: a tree built in one thread while another thread loads a base can put it back to
the wrong one, and from then on that engine would compute its loss in bfloat16. What a run computes would depend on
when somebody looked at a model.
"""

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.models.build import build_skeleton
from workbench.models.skeleton import Skeleton
from workbench.models.sources import fetch_config
from workbench.models.trees import known_skeleton
from workbench.recipe.schema import ModelSection
from workbench.storage.paths import Home

# A helper that nobody asked for so long gives its memory back.
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
        """The tree of any model; its configuration is downloaded where it is nowhere on this machine.

        Raises:
            WorkbenchError: no configuration can be had, transformers cannot build the model, or the helper died.
        """
        if known := known_skeleton(model):
            return known
        folder = fetch_config(home, model, lambda progress: None, lambda: False)
        try:
            return self._submit(folder).result()
        except BrokenProcessPool as error:
            self.close()
            raise WorkbenchError(
                f"The helper process that reads the layers of {model.source} was killed by another program.",
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
            # A tree that was asked for just before is still built.
            pool.shutdown(wait=False)

    def _submit(self, folder: Path) -> Future[Skeleton]:
        # Under the lock: between opening and submitting nobody may close the pool.
        with self._lock:
            self._last_used = time.monotonic()
            if self._pool is None:
                # Spawned: a fork would copy the engine's threads' locks and its open GPU.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start_helper)
            return self._pool.submit(_build, folder)


def _build(folder: Path) -> Skeleton:
    return build_skeleton(folder)


def _start_helper() -> None:
    """In the helper: take no GPU memory, and end when the engine is gone, however it ended."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    threading.Thread(target=_end_with_engine, daemon=True).start()


def _end_with_engine() -> None:
    engine = multiprocessing.parent_process()
    assert engine is not None
    engine.join()
    os._exit(1)
