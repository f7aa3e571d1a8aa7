"""An evaluation in the engine: base, adapters and checkpoints of one run, on the same tokens and the same prompts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from workbench import __version__
from workbench.data.templates.template import FILE as TEMPLATE_FILE
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.generation.batched import greedy_replies
from workbench.engine.generation.evaluation import RecordLoss, record_losses
from workbench.engine.generation.generation import Cancelled, end_tokens
from workbench.engine.generation.reply_targets import Target, resolve
from workbench.engine.model.adapters import ActiveAdapters, can_use, check_same_base, use_adapters
from workbench.engine.model.base import LoadedBase, check_adapter, load_base
from workbench.engine.model.hardware import library_versions
from workbench.engine.model.packing_check import why_padded
from workbench.errors import WorkbenchError
from workbench.evaluation.bootstrap import DRAWS, LEVEL
from workbench.evaluation.eval_set import FIXED_PROMPTS, Exam, set_exam
from workbench.evaluation.metrics import Tally, figures_of
from workbench.evaluation.report import write_report
from workbench.evaluation.result import BASE, Answered, Evaluation, Judged, PerRecord, keep
from workbench.progress import Progress
from workbench.recipe.schema import DataSection, Recipe
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home

Report = Callable[[Progress], None]
Load = Callable[[Callable[[], LoadedBase]], LoadedBase]


@dataclass
class _Candidate:
    """One model that takes part, and what it has done so far. ``target`` is None for the base."""

    name: str
    target: Target | None = None
    losses: list[RecordLoss] = field(default_factory=list)
    replies: list[str | None] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def voice(self) -> ActiveAdapters:
        adapter = self.target.adapter if self.target else None
        return ActiveAdapters(((adapter, 1.0),)) if adapter else ActiveAdapters()


def evaluate(
    home: Home,
    request: EvaluateRequest,
    base: LoadedBase | None,
    load: Load,
    report: Report,
    cancelled: Cancelled,
) -> Path:
    """Evaluate a run and keep what was found in its folder, with a new report.

    Args:
        base: what is in memory; used where it serves.
        load: given what loads another base, makes room for it first.

    Returns:
        The evaluation's file.

    Raises:
        WorkbenchError: there is no such run, adapter or data, an adapter is of another base; kind ``cancelled``.
    """
    run = find_run(home, request.run)
    recipe = run.recipe_as_run()
    candidates = _candidates(home, run, request)
    room = _Room(home, recipe, base, load, report, cancelled)
    base = room.base_for(candidates[0], exact=True)
    template = _template(base, run, recipe)
    data = DataSection(**request.data) if request.data else recipe.data
    own = data.source == recipe.data.source and data.split == recipe.data.split
    exam = set_exam(
        home,
        data,
        template,
        own=own,
        records=request.records,
        replies=request.replies,
        prompts=list(FIXED_PROMPTS if request.prompts is None else request.prompts),
        report=report,
        cancelled=cancelled.is_set,
    )
    rows = [{"input_ids": sample.input_ids, "labels": sample.labels} for sample in exam.samples]
    batch = recipe.training.per_device_train_batch_size
    for number, candidate in enumerate(candidates):
        with room.answering(candidate, exact=True) as model, _timed(candidate.seconds):
            part = _part(report, number, candidates)
            losses = record_losses(model, rows, batch, part, cancelled.is_set, padded=room.pads)
        candidate.losses = _unless_cancelled(losses)
    for number, candidate in enumerate(candidates):
        with room.answering(candidate, exact=False) as model, _timed(candidate.seconds):
            replies = greedy_replies(
                model,
                [question.ids for question in exam.questions],
                ends=end_tokens(model, template),
                max_new_tokens=request.max_new_tokens,
                # As many as a micro-batch of the training had.
                tokens_at_once=batch * recipe.data.max_length,
                report=_part(report, number, candidates),
                cancelled=cancelled,
            )
        candidate.replies = _unless_cancelled(replies)
    report(Progress(phase="computing intervals"))
    file = keep(run, _result(run, recipe, data, own, request, exam, candidates))
    write_report(home, run)
    return file


class _Room:
    """Has the base in memory that a candidate needs, and the candidate's adapter on it."""

    def __init__(
        self, home: Home, recipe: Recipe, base: LoadedBase | None, load: Load, report: Report, cancelled: Cancelled
    ) -> None:
        self._home = home
        self._recipe = recipe
        self._base = base
        self._load = load
        self._report = report
        self._cancelled = cancelled
        self._tried: LoadedBase | None = None
        self._pads = False

    @property
    def pads(self) -> bool:
        """Whether the base in memory needs its batches padded; tried once, as a run tries it before it begins."""
        if self._base is not None and self._tried is not self._base:
            self._tried, self._pads = self._base, bool(why_padded(self._base))
        return self._pads

    @contextmanager
    def answering(self, candidate: _Candidate, *, exact: bool) -> Iterator[LoadedBase]:
        """Within, what is active on the base is the candidate."""
        base = self.base_for(candidate, exact=exact)
        with use_adapters(base, candidate.voice):
            yield base

    def base_for(self, candidate: _Candidate, *, exact: bool) -> LoadedBase:
        """The base, loaded anew where the one in memory does not serve.

        Args:
            exact: its weights are to be those that were trained on, bit for bit; else they may be repacked for speed.
        """
        model, quantization = self._recipe.model, self._recipe.quantization
        base = self._base
        serves = base is not None and base.matches(model, quantization) and can_use(base, candidate.voice)
        if base is None or not serves or (exact and base.packing.has_packed_layers):
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
    """The base, the run's checkpoints where they are asked for, its adapter, and others by name."""
    named = [f"{run.path}@{found.step}" for found in checkpoints(run.checkpoints)] if request.checkpoints else []
    if (run.adapter / "adapter_config.json").is_file():
        named.append(str(run.path))
    elif not named and not request.adapters:
        raise WorkbenchError(
            f"Run {run.id} has no adapter yet.",
            "Wait until it ends, or evaluate its checkpoints with --checkpoints.",
            kind="no_adapter",
        )
    candidates = [_Candidate(BASE)]
    for name in [*named, *request.adapters]:
        target = resolve(home, name)
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


def _name(target: Target) -> str:
    folder, run = target.adapter, target.run
    assert folder is not None
    if run is None:
        return folder.name
    step = folder.name.removeprefix("checkpoint-")
    return run.id if folder == run.adapter else f"{run.id}@{step}" if step.isdecimal() else f"{run.id}/{folder.name}"


def _free_name(name: str, taken: set[str]) -> str:
    return next(free for free in (name, *(f"{name} ({n})" for n in range(2, len(taken) + 3))) if free not in taken)


def _template(base: LoadedBase, run: RunFolder, recipe: Recipe) -> Template:
    """The one that the run was trained with; a template file of the recipe may be gone by now."""
    if (run.adapter / TEMPLATE_FILE).is_file():
        return Template.load(run.adapter, base.tokenizer)
    return Template.for_model(base.tokenizer, recipe.data.template, recipe.data.system)


def _part(report: Report, number: int, candidates: list[_Candidate]) -> Report:
    """Progress of one candidate as progress of all of them."""

    def told(progress: Progress) -> None:
        fraction = (number + (progress.fraction or 0.0)) / len(candidates)
        detail = f"{candidates[number].name}, {number + 1} of {len(candidates)}"
        report(Progress(phase=progress.phase, fraction=fraction, detail=detail))

    return told


def _result(
    run: RunFolder,
    recipe: Recipe,
    data: DataSection,
    own: bool,
    request: EvaluateRequest,
    exam: Exam,
    candidates: list[_Candidate],
) -> Evaluation:
    answered = _answered(exam, candidates)
    records = _per_record(exam, candidates)
    tallies = {
        candidate.name: Tally(records.loss[candidate.name], records.correct[candidate.name]) for candidate in candidates
    }
    figures, minus = figures_of(records.tokens, tallies, answered, draws=DRAWS, seed=request.seed)
    return Evaluation(
        time=time.time(),
        run=run.id,
        model=recipe.model.source,
        source=data.source,
        own=own,
        records=len(records.tokens),
        more=exam.more,
        left_out=exam.left_out,
        tokens=sum(records.tokens),
        max_length=data.max_length,
        referenced=sum(one.reference is not None for one in answered),
        too_long=len(exam.questions) - len(answered),
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        draws=DRAWS,
        level=LEVEL,
        judged=[
            Judged(
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


def _answered(exam: Exam, candidates: list[_Candidate]) -> list[Answered]:
    """Each question that there was room to answer, with all replies; the room is the same for all models."""
    answered = []
    for place, question in enumerate(exam.questions):
        replies = {candidate.name: reply for candidate in candidates if (reply := candidate.replies[place]) is not None}
        if replies:
            answered.append(
                Answered(
                    prompt=question.text,
                    reference=question.reference,
                    where=question.where,
                    fixed=question.fixed,
                    replies=replies,
                )
            )
    return answered


def _per_record(exam: Exam, candidates: list[_Candidate]) -> PerRecord:
    """The sums of each record. The chunks of a document are one record: they are no draws of their own."""
    places = {index: place for place, index in enumerate(dict.fromkeys(sample.index for sample in exam.samples))}
    loss = {candidate.name: [0.0] * len(places) for candidate in candidates}
    correct = {candidate.name: [0] * len(places) for candidate in candidates}
    tokens, where = [0] * len(places), [""] * len(places)
    for number, sample in enumerate(exam.samples):
        place = places[sample.index]
        where[place] = sample.where
        tokens[place] += candidates[0].losses[number].tokens
        for candidate in candidates:
            loss[candidate.name][place] += candidate.losses[number].loss
            correct[candidate.name][place] += candidate.losses[number].correct
    return PerRecord(where=where, tokens=tokens, loss=loss, correct=correct)


Found = TypeVar("Found")


def _unless_cancelled(found: Found | None) -> Found:
    if found is None:
        raise WorkbenchError("The evaluation was cancelled; nothing was saved.", kind="cancelled")
    return found


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds.append(time.monotonic() - started)
