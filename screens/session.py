"""The state that all screens share: the current recipe, the engine and its last status. Contains no widgets."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from screens.hardware_history import HardwareHistory
from screens.recipe_history import RecipeHistory, RecipeState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from screens.run_names import RunNames
    from workbench.data.facts import DataFacts, Lengths
    from workbench.engine.client.home_engine import HomeEngine
    from workbench.engine.client.protocol import EngineStatus
    from workbench.errors import WorkbenchError
    from workbench.estimate import TraceStore
    from workbench.machine.gpu import GpuSample
    from workbench.machine.host import HostSample
    from workbench.machine.memory_budget import MemoryBudget
    from workbench.models.skeleton import Skeleton
    from workbench.planning.launch import Launch
    from workbench.recipe.schema import Recipe
    from workbench.recipe.sections.data import DataSection
    from workbench.recipe.sections.model import ModelSection
    from workbench.runs.folder import RunFolder
    from workbench.runs.live_run import LiveRun
    from workbench.runs.summary import RunSummary
    from workbench.storage.paths import Home
    from workbench.storage.settings import Settings

    DatasetKey = tuple[ModelSection, DataSection, str, object]


class Session:
    """The state of one terminal. The app writes it, screens read it.

    ``recipe`` and ``settings`` exist once :meth:`load` has run, which is before the first screen is mounted.

    Attributes:
        skeleton: module tree of the recipe's model; None until it is known, or if ``skeleton_error`` says why not.
        status: the engine's last status; None without an engine.
        live: the live run, or the last one, as read from its journal.
        unusable_settings: dotted keys of settings and of the last recipe that could not be used.
        typed_budget: the memory limit that the user typed, in bytes.
        dataset_facts: the newest dataset statistics, with the :func:`dataset_key` that they belong to.
        launch: the GPUs to train on; None for the engine's own process on the first GPU.
        history: the recipes before and after the current one.
        hardware_history: memory and load over the last minutes.
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
        # Whether PyTorch was built for GPUs: assumed until the installation was examined.
        self.has_gpu_build = True
        self.typed_budget: int | None = None
        self.dataset_facts: tuple[DatasetKey, DataFacts] | None = None
        self.launch: Launch | None = None
        self.history = RecipeHistory()
        self.hardware_history = HardwareHistory()

    @property
    def engine(self) -> HomeEngine:
        """The engine of the home. Created by :meth:`load`, off the event loop, because its imports take long."""
        if self._engine is None:
            from workbench.engine.client.home_engine import HomeEngine

            self._engine = HomeEngine(self.home)
        return self._engine

    @cached_property
    def names(self) -> RunNames:
        """The names of the runs that are shown."""
        from screens.run_names import RunNames

        return RunNames(self.home)

    def load(self) -> None:
        """Read the settings and the last recipe. Imports pydantic, so it runs in a thread, after the first frame."""
        from workbench.recipe.text import parse_usable
        from workbench.storage.settings import read

        _ = self.engine
        self.settings = read(self.home)
        # A recipe of an older version may hold what this one does not know.
        self.typed_budget = self.settings.memory_limit
        self.recipe, problems = parse_usable(self.settings.recipe or {})
        self.unusable_settings = (*self.settings.problems, *(f"recipe.{problem.path}" for problem in problems))

    @cached_property
    def traces(self) -> TraceStore:
        """Traces of training steps: those shipped with the package, and those made on this machine."""
        from workbench.estimate import TraceStore

        return TraceStore(self.home.cache / "traces")

    def facts_of(self, recipe: Recipe) -> DataFacts | None:
        """The statistics of a recipe's dataset; None if they are not known for exactly its settings."""
        known = self.dataset_facts
        return known[1] if known and known[0] == dataset_key(recipe) else None

    def lengths_of(self, recipe: Recipe) -> Lengths | None:
        """The lengths of a recipe's records, if statistics of all records are known. Nothing is tokenized for this.

        They are valid for any micro-batch size, and for a ``max_length`` up to the one that they were computed with.
        """
        if self.dataset_facts is None:
            return None
        (model, data, kind, _), facts = self.dataset_facts
        if not facts.exact or not facts.lengths.max or recipe.model != model:
            return None
        if recipe.objective.spec.records != kind:
            return None
        if recipe.data != data:
            # With a higher limit, tokens that the lower one truncated would be missing.
            length = recipe.data.max_length
            if length > data.max_length or recipe.data != data.model_copy(update={"max_length": length}):
                return None
        return facts.lengths

    def edit(self, changes: Mapping[str, Any], edit: object = None) -> None:
        """Change the recipe at dotted keys.

        Args:
            edit: what the change is a part of; all changes of an edit are undone together.

        Raises:
            RecipeError: lists every mistake; the recipe stays unchanged.
        """
        from workbench.recipe.text import edit as edited

        before = self._state
        self.recipe = edited(self.recipe, changes)
        if not changes.keys() & {"output", "output.name"} and self._has_left_its_preset(before.recipe):
            self.recipe = edited(self.recipe, {"output.name": type(self.recipe.output)().name})
        if self.recipe != before.recipe:
            self.history.record(before, self.recipe, edit)
        self.remember(recipe=self.recipe.as_dict())

    def undo(self) -> bool:
        """Make the recipe before the last change the current one; return whether there is one."""
        return self._go_to(self.history.undo(self._state))

    def redo(self) -> bool:
        """Make the recipe whose change was undone last the current one; return whether there is one."""
        return self._go_to(self.history.redo(self._state))

    def _go_to(self, state: RecipeState | None) -> bool:
        if state is None:
            return False
        self.recipe = state.recipe
        self.remember(recipe=state.recipe.as_dict(), preset_name=state.preset_name)
        return True

    @property
    def _state(self) -> RecipeState:
        return RecipeState(self.recipe, self.settings.preset_name)

    def _has_left_its_preset(self, before: Recipe) -> bool:
        """Whether runs are named after a preset whose model or dataset was just changed."""
        is_named_after = before.output.name == self.settings.preset_name
        now = self.recipe
        return is_named_after and (before.model.source, before.data.source) != (now.model.source, now.data.source)

    def limit_memory(self, limit: int | None) -> None:
        """Judge settings by a memory limit in bytes, also in the next terminal; None for what is free here."""
        self.typed_budget = limit
        self.remember(memory_limit=limit)

    @property
    def loaded_recipe(self) -> Recipe:
        """The recipe with the quantization that its base has once loaded: the files of some models decide it."""
        from workbench.models.stored_quantization import recipe_as_loaded

        return self.recipe if self.skeleton is None else recipe_as_loaded(self.recipe, self.skeleton.config)

    @property
    def budget(self) -> MemoryBudget:
        """The memory that forms check against: the typed limit, even above what is free; else what a run may use."""
        here = self._budget_here
        return here if self.typed_budget is None else here.limited_to(self.typed_budget)

    @property
    def run_budget(self) -> MemoryBudget:
        """The memory for a run that is started or queued here: what it may use, at most the typed limit."""
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
        """Whether the user has chosen a model or changed a setting, in this or an earlier session."""
        return self.settings.recipe is not None

    @property
    def summary(self) -> RunSummary | None:
        """Summary of the live run, or of the last one; None before the first."""
        return self.live.replay.summary if self.live is not None else None

    def follow(self, run: RunFolder) -> LiveRun:
        """Return what is read of a run's journal, as :attr:`live` from now on.

        One reader serves the whole app, before the engine calls the run live and after: a second one would show the run
        without its steps until it has read them again.
        """
        from workbench.runs.live_run import LiveRun

        if self.live is None or self.live.run.id != run.id:
            self.live = LiveRun(run)
        return self.live

    @property
    def is_live(self) -> bool:
        """Whether a run is live."""
        return self.status is not None and self.status.run is not None

    def remember(self, **changes: Any) -> None:
        """Change settings; :meth:`save` writes them."""
        new = {name: value for name, value in changes.items() if value != getattr(self.settings, name)}
        self.settings = self.settings.model_copy(update=new)
        self._changed_settings |= new

    def save(self) -> None:
        """Write the settings that changed in this session since the last call. The file keeps all others.

        Raises:
            OSError: the file cannot be written; the next call tries again.
        """
        from workbench.storage.settings import update

        changes, self._changed_settings = self._changed_settings, {}
        try:
            update(self.home, {name: _plain(value) for name, value in changes.items()})
        except OSError:
            self._changed_settings = changes | self._changed_settings
            raise


def _plain(value: object) -> object:
    """A setting as it is in the file: a group of settings as plain data."""
    from pydantic import BaseModel

    return value.model_dump() if isinstance(value, BaseModel) else value


def dataset_key(recipe: Recipe) -> DatasetKey:
    """The settings that dataset statistics depend on."""
    return recipe.model, recipe.data, recipe.objective.spec.records, recipe.training.per_device_train_batch_size
