"""The models that an evaluation compares: a run's base, its adapter and checkpoints, and further adapters."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from workbench.data.templates.stored import FILE as TEMPLATE_FILE
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.generation.evaluation import Record, RecordLoss
from workbench.engine.generation.generation import StopSignal
from workbench.engine.generation.reply_targets import ReplyTarget, resolve
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import ActiveAdapters, can_use, check_same_base, use_adapters
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.load_base import load_base
from workbench.engine.model.loss_check.check import check_loss
from workbench.errors import WorkbenchError
from workbench.evaluation.result import BASE
from workbench.progress import Progress, Report
from workbench.recipe.schema import Recipe
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder
from workbench.storage.paths import Home

Load = Callable[[Callable[[], LoadedBase]], LoadedBase]
"""Makes room in memory, then calls the function that loads the base."""


@dataclass
class Candidate:
    """One model to evaluate, and its results so far. ``target`` is None for the base."""

    name: str
    target: ReplyTarget | None = None
    losses: list[RecordLoss | None] = field(default_factory=list)
    rejected: list[RecordLoss | None] = field(default_factory=list)
    replies: list[str | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def adapters(self) -> ActiveAdapters:
        adapter = self.target.adapter if self.target else None
        return ActiveAdapters(((adapter, 1.0),)) if adapter else ActiveAdapters()


class BaseProvider:
    """Loads the base that a candidate needs, and activates the candidate's adapter on it."""

    def __init__(
        self, home: Home, recipe: Recipe, base: LoadedBase | None, load: Load, report: Report, cancelled: StopSignal
    ) -> None:
        self._home = home
        self._recipe = recipe
        self._base = base
        self._load = load
        self._report = report
        self._cancelled = cancelled
        self._checked: LoadedBase | None = None
        self._loss_path = LossPath()

    def loss_path(self, records: Sequence[Record]) -> LossPath:
        """How the loss of the base in memory is computed; checked once per base."""
        if self._base is not None and self._checked is not self._base:
            self._checked, self._loss_path = self._base, check_loss(self._base, records).path
        return self._loss_path

    @contextmanager
    def activated(self, candidate: Candidate, *, exact_weights: bool) -> Iterator[LoadedBase]:
        """Within, the candidate's adapter is active on the base."""
        base = self.base_for(candidate, exact_weights=exact_weights)
        with use_adapters(base, candidate.adapters):
            yield base

    def base_for(self, candidate: Candidate, *, exact_weights: bool) -> LoadedBase:
        """Return the base for a candidate; loads it if the one in memory does not fit.

        Args:
            exact_weights: the weights must be bit for bit those that were trained on; otherwise they may be repacked
                for speed.
        """
        model, quantization = self._recipe.model, self._recipe.quantization
        base = self._base
        fits = base is not None and base.matches(model, quantization) and can_use(base, candidate.adapters)
        if base is None or not fits or (exact_weights and base.packing.has_packed_layers):
            self._base = None
            base = self._base = self._load(
                lambda: load_base(self._home, model, quantization, self._report, self._cancelled.is_set)
            )
        if candidate.target is not None:
            check_same_base(base, candidate.target.model, candidate.name)
        if exact_weights:
            base.packing.forbid()
        else:
            base.packing.allow()
        return base


def find_candidates(home: Home, run: RunFolder, request: EvaluateRequest) -> list[Candidate]:
    """The base, the run's checkpoints if requested, its adapter, and the other adapters of the request."""
    names = (
        [f"{run.path}@{checkpoint.step}" for checkpoint in checkpoints(run.checkpoints)] if request.checkpoints else []
    )
    if (run.adapter / "adapter_config.json").is_file():
        names.append(str(run.path))
    elif not names and not request.adapters:
        raise WorkbenchError(
            f"Run {run.id} has no adapter yet.",
            "Wait until it ends, or evaluate its checkpoints with --checkpoints.",
            kind="no_adapter",
        )
    candidates = [Candidate(BASE)]
    for name in [*names, *request.adapters]:
        target = resolve(home, name, request.base)
        if target.adapter is None:
            raise WorkbenchError(
                f"{name} is a base model. The run's base is always evaluated.",
                "Give runs, checkpoints (run@40) or adapter folders.",
                kind="no_adapter",
            )
        check_adapter(target.adapter)
        if not any(other.target and other.target.adapter == target.adapter for other in candidates):
            taken = {other.name for other in candidates}
            candidates.append(Candidate(_free_name(_name(target), taken), target))
    return candidates


def _name(target: ReplyTarget) -> str:
    folder, run = target.adapter, target.run
    assert folder is not None
    if run is None:
        return folder.name
    step = folder.name.removeprefix("checkpoint-")
    return run.id if folder == run.adapter else f"{run.id}@{step}" if step.isdecimal() else f"{run.id}/{folder.name}"


def _free_name(name: str, taken: set[str]) -> str:
    return next(free for free in (name, *(f"{name} ({n})" for n in range(2, len(taken) + 3))) if free not in taken)


def run_template(base: LoadedBase, run: RunFolder, recipe: Recipe) -> Template:
    """The template that the run was trained with, from its adapter: the recipe's template file may no longer exist."""
    if (run.adapter / TEMPLATE_FILE).is_file():
        return Template.load(run.adapter, base.tokenizer)
    return Template.for_model(base.tokenizer, recipe.data.template, recipe.data.system)


def share_of_progress(report: Report, number: int, candidates: list[Candidate]) -> Report:
    """A function that reports the progress of one candidate as progress of the whole evaluation."""

    def report_share(progress: Progress) -> None:
        fraction = (number + (progress.fraction or 0.0)) / len(candidates)
        detail = f"{candidates[number].name}, {number + 1} of {len(candidates)}"
        report(Progress(phase=progress.phase, fraction=fraction, detail=detail))

    return report_share


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append the duration of the block to ``seconds``."""
    started = time.monotonic()
    yield
    seconds.append(time.monotonic() - started)
