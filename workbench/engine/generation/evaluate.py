"""Evaluates a run: compares its base, adapter and checkpoints on the same held-out records and the same prompts."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workbench import __version__
from workbench.data.templates.stored import FILE as TEMPLATE_FILE
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.generation.batched import greedy_replies
from workbench.engine.generation.evaluation import Record, RecordLoss, record_losses
from workbench.engine.generation.generation import StopSignal, end_tokens
from workbench.engine.generation.reply_targets import ReplyTarget, resolve
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.adapters import ActiveAdapters, can_use, check_same_base, use_adapters
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import library_versions
from workbench.engine.model.load_base import load_base
from workbench.engine.model.loss_check.check import check_loss
from workbench.errors import WorkbenchError
from workbench.evaluation.bootstrap import DRAWS, LEVEL
from workbench.evaluation.eval_set import FIXED_PROMPTS, EvalSet, build_eval_set
from workbench.evaluation.metrics import Tally, compute_metrics
from workbench.evaluation.report import write_report
from workbench.evaluation.result import BASE, AnsweredPrompt, EvaluatedModel, Evaluation, PerRecord, save_evaluation
from workbench.progress import Progress
from workbench.recipe.data_sources import source_text
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import on_base
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home

Report = Callable[[Progress], None]
Load = Callable[[Callable[[], LoadedBase]], LoadedBase]


@dataclass
class _Candidate:
    """One model to evaluate, and its results so far. ``target`` is None for the base."""

    name: str
    target: ReplyTarget | None = None
    losses: list[RecordLoss | None] = field(default_factory=list)
    replies: list[str | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def adapters(self) -> ActiveAdapters:
        adapter = self.target.adapter if self.target else None
        return ActiveAdapters(((adapter, 1.0),)) if adapter else ActiveAdapters()


def evaluate(
    home: Home,
    request: EvaluateRequest,
    base: LoadedBase | None,
    load: Load,
    report: Report,
    cancelled: StopSignal,
) -> Path:
    """Evaluate a run, and save the results and a new report in its folder.

    If it is cancelled, the records and replies that all models begun so far have are kept.

    Args:
        base: the base in memory; used if it fits.
        load: called with a function that loads another base; makes room for it first.

    Returns:
        The evaluation's file.

    Raises:
        WorkbenchError: the run, an adapter or the data does not exist, or an adapter belongs to another base; kind
            ``cancelled`` when cancelled before a model could be compared with the base.
    """
    run = find_run(home, request.run)
    recipe = on_base(run.recipe_as_run(), request.base)
    candidates = _candidates(home, run, request)
    bases = _BaseProvider(home, recipe, base, load, report, cancelled)
    base = bases.base_for(candidates[0], exact=True)
    template = _template(base, run, recipe)
    data = DataSection(**request.data) if request.data else recipe.data
    is_own_data = data.source == recipe.data.source and data.split == recipe.data.split
    eval_set = build_eval_set(
        home,
        data,
        template,
        is_run_data=is_own_data,
        records=request.records,
        replies=request.replies,
        prompts=list(FIXED_PROMPTS if request.prompts is None else request.prompts),
        report=report,
        cancelled=cancelled.is_set,
    )
    rows = [{"input_ids": sample.input_ids, "labels": sample.labels} for sample in eval_set.samples]
    batch = recipe.training.per_device_train_batch_size
    for number, candidate in enumerate(candidates):
        with bases.activated(candidate, exact=True) as model, _timed(candidate.seconds):
            progress = _share_of_progress(report, number, candidates)
            candidate.losses = record_losses(model, rows, batch, progress, cancelled.is_set, path=bases.loss_path(rows))
        if cancelled.is_set():
            break
    for number, candidate in enumerate([] if cancelled.is_set() else candidates):
        with bases.activated(candidate, exact=False) as model, _timed(candidate.seconds):
            candidate.replies = greedy_replies(
                model,
                [question.ids for question in eval_set.questions],
                ends=end_tokens(model, template),
                max_new_tokens=request.max_new_tokens,
                # As many as in a micro-batch of the training.
                tokens_at_once=batch * recipe.data.max_length,
                report=_share_of_progress(report, number, candidates),
                cancelled=cancelled,
            )
        if cancelled.is_set():
            break
    report(Progress(phase="computing intervals"))
    result = _result(run, recipe, data, is_own_data, request, eval_set, candidates, is_stopped=cancelled.is_set())
    file = save_evaluation(run, result)
    write_report(home, run)
    return file


class _BaseProvider:
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
    def activated(self, candidate: _Candidate, *, exact: bool) -> Iterator[LoadedBase]:
        """Within, the candidate's adapter is active on the base."""
        base = self.base_for(candidate, exact=exact)
        with use_adapters(base, candidate.adapters):
            yield base

    def base_for(self, candidate: _Candidate, *, exact: bool) -> LoadedBase:
        """Return the base for a candidate; loads it if the one in memory does not fit.

        Args:
            exact: the weights must be bit for bit those that were trained on; otherwise they may be repacked for speed.
        """
        model, quantization = self._recipe.model, self._recipe.quantization
        base = self._base
        fits = base is not None and base.matches(model, quantization) and can_use(base, candidate.adapters)
        if base is None or not fits or (exact and base.packing.has_packed_layers):
            self._base = None
            base = self._base = self._load(
                lambda: load_base(self._home, model, quantization, self._report, self._cancelled.is_set)
            )
        if candidate.target is not None:
            check_same_base(base, candidate.target.model, candidate.name)
        if exact:
            base.packing.forbid()
        else:
            base.packing.allow()
        return base


def _candidates(home: Home, run: RunFolder, request: EvaluateRequest) -> list[_Candidate]:
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
    candidates = [_Candidate(BASE)]
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
            candidates.append(_Candidate(_free_name(_name(target), taken), target))
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


def _template(base: LoadedBase, run: RunFolder, recipe: Recipe) -> Template:
    """The template that the run was trained with, from its adapter: the recipe's template file may no longer exist."""
    if (run.adapter / TEMPLATE_FILE).is_file():
        return Template.load(run.adapter, base.tokenizer)
    return Template.for_model(base.tokenizer, recipe.data.template, recipe.data.system)


def _share_of_progress(report: Report, number: int, candidates: list[_Candidate]) -> Report:
    """A function that reports the progress of one candidate as progress of the whole evaluation."""

    def report_share(progress: Progress) -> None:
        fraction = (number + (progress.fraction or 0.0)) / len(candidates)
        detail = f"{candidates[number].name}, {number + 1} of {len(candidates)}"
        report(Progress(phase=progress.phase, fraction=fraction, detail=detail))

    return report_share


def _result(
    run: RunFolder,
    recipe: Recipe,
    data: DataSection,
    is_own_data: bool,
    request: EvaluateRequest,
    eval_set: EvalSet,
    candidates: list[_Candidate],
    *,
    is_stopped: bool,
) -> Evaluation:
    candidates = [candidate for candidate in candidates if any(candidate.losses)]
    answered = _answered(eval_set, candidates, by_all=is_stopped)
    records = _per_record(eval_set, candidates)
    if is_stopped and (len(candidates) < 2 or not records.tokens):
        raise WorkbenchError("The evaluation was stopped before anything could be compared.", kind="cancelled")
    tallies = {
        candidate.name: Tally(records.loss[candidate.name], records.correct[candidate.name]) for candidate in candidates
    }
    figures, minus = compute_metrics(records.tokens, tallies, answered, draws=DRAWS, seed=request.seed)
    return Evaluation(
        time=time.time(),
        run=run.id,
        model=recipe.model.source,
        source=source_text(data.source),
        own=is_own_data,
        records=len(records.tokens),
        planned=len({sample.index for sample in eval_set.samples}) if is_stopped else None,
        more=eval_set.has_more,
        left_out=eval_set.skipped,
        tokens=sum(records.tokens),
        max_length=data.max_length,
        referenced=sum(one.reference is not None for one in answered),
        too_long=0 if is_stopped else len(eval_set.questions) - len(answered),
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        draws=DRAWS,
        level=LEVEL,
        judged=[
            EvaluatedModel(
                name=candidate.name,
                folder=str(candidate.target.adapter) if candidate.target else None,
                figures=figures[candidate.name],
                minus=minus.get(candidate.name),
                seconds=candidate.seconds,
            )
            for candidate in candidates
        ],
        answered=answered,
        per_record=records,
        versions={"loraworkbench": __version__, **library_versions()},
    )


def _answered(eval_set: EvalSet, candidates: list[_Candidate], *, by_all: bool) -> list[AnsweredPrompt]:
    """Each question that left room for a reply, with the replies of all candidates.

    Args:
        by_all: leave out those that some candidate has not answered yet.
    """
    answered = []
    for place, question in enumerate(eval_set.questions):
        known = {candidate.name: candidate.replies[place] for candidate in candidates if candidate.replies}
        replies = {name: reply for name, reply in known.items() if reply is not None}
        if len(replies) >= (len(candidates) if by_all else 1):
            answered.append(
                AnsweredPrompt(
                    prompt=question.text,
                    reference=question.reference,
                    where=question.where,
                    fixed=question.fixed,
                    replies=replies,
                )
            )
    return answered


def _per_record(eval_set: EvalSet, candidates: list[_Candidate]) -> PerRecord:
    """Sums for each record. The chunks of a document count as one record, since they are not independent samples."""
    known = []
    for number, sample in enumerate(eval_set.samples):
        losses = [one for candidate in candidates if (one := candidate.losses[number]) is not None]
        if losses and len(losses) == len(candidates):
            known.append((sample, losses))
    places = {index: place for place, index in enumerate(dict.fromkeys(sample.index for sample, _ in known))}
    loss = {candidate.name: [0.0] * len(places) for candidate in candidates}
    correct = {candidate.name: [0] * len(places) for candidate in candidates}
    tokens, where = [0] * len(places), [""] * len(places)
    for sample, losses in known:
        place = places[sample.index]
        where[place] = sample.where
        tokens[place] += losses[0].tokens
        for candidate, one in zip(candidates, losses, strict=True):
            loss[candidate.name][place] += one.loss
            correct[candidate.name][place] += one.correct
    return PerRecord(where=where, tokens=tokens, loss=loss, correct=correct)


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    """Append the duration of the block to ``seconds``."""
    started = time.monotonic()
    yield
    seconds.append(time.monotonic() - started)
