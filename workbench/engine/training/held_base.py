"""The base that a run trains on: the one in memory if the recipe asks for the same, or else a new one."""

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import free_cached_memory
from workbench.engine.model.load_base import load_base
from workbench.engine.steering.ranks import Ranks
from workbench.models.sources import fetch_model
from workbench.progress import Cancelled, Report
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HeldBase:
    """Loads a run's base, keeps it in memory after the run, or releases it.

    Args:
        base: the base in memory, if any.

    Attributes:
        base: the base in memory; None if it was released or failed to load.
    """

    def __init__(self, home: Home, ranks: Ranks, base: LoadedBase | None) -> None:
        self._home = home
        self._ranks = ranks
        self.base = base

    def load(
        self,
        recipe: Recipe,
        report: Report,
        is_stopped: Cancelled,
        on_tokenizer: "Callable[[PreTrainedTokenizerBase], None]",
        on_load: Callable[[LoadedBase], None],
    ) -> LoadedBase:
        """Load the base of a recipe, unless it is in memory.

        Args:
            on_tokenizer: called as soon as the tokenizer is loaded, before the weights.
            on_load: called when the weights are loaded.
        """
        if self.base is not None and not _can_be_used(self.base, recipe):
            self.release()
        if self.base is None:
            if self._ranks.count > 1:
                # Only one process per machine should download or convert the model.
                self._ranks.first_before_others(lambda: fetch_model(self._home, recipe.model, report, is_stopped))
            self.base = load_base(self._home, recipe.model, recipe.quantization, report, is_stopped, on_tokenizer)
            on_load(self.base)
        return self.base

    def release(self) -> None:
        """Release the memory of the base."""
        self.base = None
        free_cached_memory()

    def detach_adapter(self) -> None:
        """Prepare the base for the next run; if that fails, as after a CUDA error, release it."""
        # A run in several processes leaves no base: they exit.
        if self.base is None or self._ranks.count > 1:
            return
        try:
            self.base.prepare_for_chat()
            self.base.detach_all()
        except Exception:
            traceback.print_exc()
            self.base = None


def _can_be_used(base: LoadedBase, recipe: Recipe) -> bool:
    return base.is_unchanged and base.matches(recipe.model, recipe.quantization)
