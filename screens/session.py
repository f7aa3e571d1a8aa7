"""What all screens share: the current recipe, the engine, and the last that was heard of it. No widgets in here."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from screens.run_names import RunNames
    from workbench.data.facts import DataFacts, Lengths
    from workbench.engine.client.home_engine import HomeEngine
    from workbench.engine.client.protocol import EngineStatus
    from workbench.errors import WorkbenchError
    from workbench.estimate import TraceStore
    from workbench.machine.gpu import GpuSample, HostSample
    from workbench.machine.memory_budget import MemoryBudget
    from workbench.models.skeleton import Skeleton
    from workbench.planning.launch import Launch
    from workbench.recipe.schema import DataSection, ModelSection, Recipe
    from workbench.runs.live_run import LiveRun
    from workbench.runs.summary import RunSummary
    from workbench.storage.paths import Home
    from workbench.storage.settings import Settings

    Counted = tuple[ModelSection, DataSection, object]


class Session:
    """The state of one terminal. The app writes it, screens read it.

    ``recipe`` and ``settings`` are there once :meth:`load` has run, which is before the first screen is mounted.
    """

    def __init__(self, home: Home, engine: HomeEngine | None = None) -> None:
        self.home = home
        self._engine = engine
        self.recipe: Recipe
        self.skeleton: Skeleton | None = None
        self.skeleton_error: WorkbenchError | None = None
        self.status: EngineStatus | None = None
        self.live: LiveRun | None = None
        self.gpus: tuple[GpuSample, ...] = ()
        self.host: HostSample | None = None
        self.settings: Settings
        self.unusable_settings: tuple[str, ...] = ()
        self._changed_settings: dict[str, Any] = {}
        # Whether PyTorch was built for GPUs; the engine, once it has looked, knows better.
        self.has_gpu_build = True
        self.typed_budget: int | None = None
        self.counted: tuple[Counted, DataFacts] | None = None
        # None: the engine's own process trains, on the first GPU.
        self.launch: Launch | None = None

    @property
    def engine(self) -> HomeEngine:
        """The engine of the home. Imports the protocol's types, so :meth:`load` is the first to ask for it."""
        if self._engine is None:
            from workbench.engine.client.home_engine import HomeEngine

            self._engine = HomeEngine(self.home)
        return self._engine

    @cached_property
    def names(self) -> RunNames:
        """What people call the runs that titles name."""
        from screens.run_names import RunNames

        return RunNames(self.home)

    def load(self) -> None:
        """Read what the last terminal left. Imports pydantic, so it runs after the first frame, in a thread."""
        from workbench.recipe.text import parse_usable
        from workbench.storage.settings import read

        _ = self.engine
        self.settings = read(self.home)
        # A recipe of an older version may hold what this one does not know.
        self.recipe, problems = parse_usable(self.settings.recipe or {})
        self.unusable_settings = (*self.settings.problems, *(f"recipe.{problem.path}" for problem in problems))

    @cached_property
    def traces(self) -> TraceStore:
        """Followed training steps: those that come with the package, and those that were made here."""
        from workbench.estimate import TraceStore

        return TraceStore(self.home.cache / "traces")

    def facts_of(self, recipe: Recipe) -> DataFacts | None:
        """The newest facts of a recipe's data, if they were counted for just this."""
        return self.counted[1] if self.counted and self.counted[0] == counted_for(recipe) else None

    def lengths_of(self, recipe: Recipe) -> Lengths | None:
        """How long the records of a recipe are, where all of them were counted. Nothing is counted for this.

        How many make a micro-batch does not change them, and a lower cut changes only what is over it.
        """
        if self.counted is None:
            return None
        (model, data, _), facts = self.counted
        if not facts.exact or not facts.lengths.max or recipe.model != model:
            return None
        if recipe.data != data:
            # What a lower cut had dropped would come back with a higher one.
            length = recipe.data.max_length
            if length > data.max_length or recipe.data != data.model_copy(update={"max_length": length}):
                return None
        return facts.lengths

    def edit(self, changes: Mapping[str, Any]) -> None:
        """Change the recipe at dotted keys.

        Raises:
            RecipeError: with every mistake in it; the recipe stays as it was.
        """
        from workbench.recipe.text import edit

        self.recipe = edit(self.recipe, changes)
        self.remember(recipe=self.recipe.as_dict())

    @property
    def loaded_recipe(self) -> Recipe:
        """The recipe with the quantization that its base has once loaded: the files of some models decide it."""
        from workbench.models.stored_quantization import recipe_as_loaded

        return self.recipe if self.skeleton is None else recipe_as_loaded(self.recipe, self.skeleton.config)

    @property
    def budget(self) -> MemoryBudget:
        """The memory that settings are judged by: the limit that was typed, else what a run here may take."""
        here = self._budget_here
        return here if self.typed_budget is None else here.limited_to(self.typed_budget)

    @property
    def run_budget(self) -> MemoryBudget:
        """The memory that a run may take which is started or queued here: what is free, within a typed limit."""
        here = self._budget_here
        return here if self.typed_budget is None else here.at_most(self.typed_budget)

    @property
    def _budget_here(self) -> MemoryBudget:
        from workbench.planning.memory import budget_of_run

        return budget_of_run(
            self.home, self.gpus, self.host, self.status, self.launch, has_gpu_build=self.has_gpu_build
        )

    @property
    def model_chosen(self) -> bool:
        """Whether somebody has picked a model or changed anything, now or before."""
        return self.settings.recipe is not None

    @property
    def summary(self) -> RunSummary | None:
        """The run that is live, or was last, in a few figures; None before the first one."""
        return self.live.replay.summary if self.live is not None else None

    @property
    def is_live(self) -> bool:
        """A run is going on."""
        return self.status is not None and self.status.run is not None

    def remember(self, **changes: Any) -> None:
        """Change settings; :meth:`save` writes them."""
        new = {name: value for name, value in changes.items() if value != getattr(self.settings, name)}
        self.settings = self.settings.model_copy(update=new)
        self._changed_settings |= new

    def save(self) -> None:
        """Write the settings that changed here since the last time. All others stay as the file has them now.

        Raises:
            OSError: the disk refuses; the next call tries again.
        """
        from workbench.storage.settings import update

        changes, self._changed_settings = self._changed_settings, {}
        try:
            update(self.home, changes)
        except OSError:
            self._changed_settings = changes | self._changed_settings
            raise


def counted_for(recipe: Recipe) -> Counted:
    """What the facts of a data set depend on."""
    return recipe.model, recipe.data, recipe.training.per_device_train_batch_size
