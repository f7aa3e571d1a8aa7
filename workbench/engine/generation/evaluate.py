"""Evaluates a run: compares its base, adapter and checkpoints on the same held-out records and the same prompts."""

import time
from pathlib import Path

from workbench import __version__
from workbench.data.templates.template import Template
from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.generation.batched import greedy_replies
from workbench.engine.generation.candidates import (
    BaseProvider,
    Candidate,
    Load,
    find_candidates,
    run_template,
    share_of_progress,
    timed,
)
from workbench.engine.generation.evaluate_head import HeadEvaluation
from workbench.engine.generation.evaluation import RecordLoss, record_losses
from workbench.engine.generation.generation import StopSignal, end_tokens
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import library_versions
from workbench.errors import WorkbenchError
from workbench.evaluation.bootstrap import DRAWS, LEVEL
from workbench.evaluation.eval_set import FIXED_PROMPTS, EvalSet, build_eval_set
from workbench.evaluation.metrics import Rejected, Tally, compute_metrics
from workbench.evaluation.report import write_report
from workbench.evaluation.result import AnsweredPrompt, EvaluatedModel, Evaluation, PerRecord, save_evaluation
from workbench.progress import Progress, Report
from workbench.recipe.data_sources import source_text
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import on_base
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home


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
    spec = recipe.objective.spec
    candidates = find_candidates(home, run, request)
    if spec.has_head:
        # The base has no head: a baseline without a model takes its place.
        candidates = candidates[1:]
    bases = BaseProvider(home, recipe, base, load, report, cancelled)
    base = bases.base_for(candidates[0], exact_weights=True)
    template = run_template(base, run, recipe)
    data = DataSection(**request.data) if request.data else recipe.data
    is_run_data = data.source == recipe.data.source and data.split == recipe.data.split
    eval_set = build_eval_set(
        home,
        data,
        template,
        is_run_data=is_run_data,
        records=request.records,
        replies=0 if spec.has_head else request.replies,
        prompts=[] if spec.has_head else list(FIXED_PROMPTS if request.prompts is None else request.prompts),
        report=report,
        cancelled=cancelled.is_set,
        kind=spec.shown_as,
    )
    if spec.has_head:
        of_head = HeadEvaluation(run, recipe, request, data, is_run_data, eval_set)
        file = save_evaluation(run, of_head.evaluate(candidates, bases, report, cancelled.is_set))
        write_report(home, run)
        return file
    batch = recipe.training.per_device_train_batch_size
    _measure_losses(candidates, eval_set, bases, batch, report, cancelled)
    if not cancelled.is_set():
        # As many tokens at once as in a micro-batch of the training.
        _generate_replies(
            candidates,
            eval_set,
            bases,
            template,
            max_new_tokens=request.max_new_tokens,
            tokens_at_once=batch * recipe.data.max_length,
            report=report,
            cancelled=cancelled,
        )
    report(Progress(phase="computing intervals"))
    result = _result(run, recipe, data, is_run_data, request, eval_set, candidates, is_stopped=cancelled.is_set())
    file = save_evaluation(run, result)
    write_report(home, run)
    return file


def _measure_losses(
    candidates: list[Candidate],
    eval_set: EvalSet,
    bases: BaseProvider,
    batch: int,
    report: Report,
    cancelled: StopSignal,
) -> None:
    """Give each candidate its losses of the records, until cancelled."""
    samples = eval_set.samples
    rows = eval_set.rows
    for number, candidate in enumerate(candidates):
        with bases.activated(candidate, exact_weights=True) as model, timed(candidate.seconds):
            progress = share_of_progress(report, number, candidates)
            losses = record_losses(model, rows, batch, progress, cancelled.is_set, path=bases.loss_path(rows))
            candidate.losses, candidate.rejected = losses[: len(samples)], losses[len(samples) :]
        if cancelled.is_set():
            break


def _generate_replies(
    candidates: list[Candidate],
    eval_set: EvalSet,
    bases: BaseProvider,
    template: Template,
    *,
    max_new_tokens: int,
    tokens_at_once: int,
    report: Report,
    cancelled: StopSignal,
) -> None:
    """Give each candidate its replies to the questions, until cancelled."""
    for number, candidate in enumerate(candidates):
        with bases.activated(candidate, exact_weights=False) as model, timed(candidate.seconds):
            candidate.replies = greedy_replies(
                model,
                [question.ids for question in eval_set.questions],
                ends=end_tokens(model, template),
                max_new_tokens=max_new_tokens,
                tokens_at_once=tokens_at_once,
                report=share_of_progress(report, number, candidates),
                cancelled=cancelled,
            )
        if cancelled.is_set():
            break


def _result(
    run: RunFolder,
    recipe: Recipe,
    data: DataSection,
    is_run_data: bool,
    request: EvaluateRequest,
    eval_set: EvalSet,
    candidates: list[Candidate],
    *,
    is_stopped: bool,
) -> Evaluation:
    """The evaluation from what has been measured. If it was stopped, it covers what all begun candidates have."""
    candidates = [candidate for candidate in candidates if any(candidate.losses)]
    answered = _answered(eval_set, candidates, by_all=is_stopped)
    records = _per_record(eval_set, candidates)
    if is_stopped and (len(candidates) < 2 or not records.tokens):
        raise WorkbenchError("The evaluation was stopped before anything could be compared.", kind="cancelled")
    tallies = {
        candidate.name: Tally(records.loss[candidate.name], records.correct[candidate.name]) for candidate in candidates
    }
    rejected = Rejected(records.rejected_tokens, records.rejected) if records.rejected else None
    figures, minus = compute_metrics(
        records.tokens, tallies, answered, draws=DRAWS, seed=request.seed, rejected=rejected
    )
    return Evaluation(
        time=time.time(),
        run=run.id,
        model=recipe.model.source,
        source=source_text(data.source),
        own=is_run_data,
        records=len(records.tokens),
        planned=len({sample.index for sample in eval_set.samples}) if is_stopped else None,
        more=eval_set.has_more,
        left_out=eval_set.skipped,
        tokens=sum(records.tokens),
        max_length=data.max_length,
        referenced=sum(prompt.reference is not None for prompt in answered),
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


def _answered(eval_set: EvalSet, candidates: list[Candidate], *, by_all: bool) -> list[AnsweredPrompt]:
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


def _per_record(eval_set: EvalSet, candidates: list[Candidate]) -> PerRecord:
    """The sums of each record that all candidates have.

    The chunks of a document count as one record, since they are not independent samples.
    """
    known = []
    for number, sample in enumerate(eval_set.samples):
        losses = [found for candidate in candidates if (found := candidate.losses[number]) is not None]
        rejected_losses = [found for candidate in candidates if (found := _rejected(candidate, number)) is not None]
        is_pair = any(candidate.rejected for candidate in candidates)
        if losses and len(losses) == len(candidates) and len(rejected_losses) == (len(losses) if is_pair else 0):
            known.append((sample, losses, rejected_losses))
    places = {index: place for place, index in enumerate(dict.fromkeys(sample.index for sample, *_ in known))}
    loss = {candidate.name: [0.0] * len(places) for candidate in candidates}
    correct = {candidate.name: [0] * len(places) for candidate in candidates}
    tokens, where = [0] * len(places), [""] * len(places)
    rejected: dict[str, list[float]] = {}
    rejected_tokens: list[int] = []
    for sample, losses, rejected_losses in known:
        place = places[sample.index]
        where[place] = sample.where
        tokens[place] += losses[0].tokens
        for candidate, record in zip(candidates, losses, strict=True):
            loss[candidate.name][place] += record.loss
            correct[candidate.name][place] += record.correct
        if rejected_losses:
            # A pair is one sample: it is never a chunk of a document.
            rejected_tokens.append(rejected_losses[0].tokens)
            for candidate, record in zip(candidates, rejected_losses, strict=True):
                rejected.setdefault(candidate.name, []).append(record.loss)
    return PerRecord(
        where=where, tokens=tokens, loss=loss, correct=correct, rejected_tokens=rejected_tokens, rejected=rejected
    )


def _rejected(candidate: Candidate, number: int) -> RecordLoss | None:
    """The loss of a pair's rejected response, if it is known."""
    return candidate.rejected[number] if number < len(candidate.rejected) else None
