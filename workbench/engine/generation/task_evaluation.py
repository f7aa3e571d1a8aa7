"""Evaluates a run with lm-eval's tasks: base and adapters on the same items."""

import importlib.metadata
import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.engine.client.protocol import EvaluateRequest, TaskSettings
from workbench.engine.generation.candidates import (
    BaseProvider,
    Candidate,
    Load,
    find_candidates,
    run_template,
    share_of_progress,
    timed,
)
from workbench.engine.generation.generation import StopSignal
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import library_versions
from workbench.errors import WorkbenchError
from workbench.evaluation.bootstrap import DRAWS, LEVEL
from workbench.evaluation.paired import flips, paired_means
from workbench.evaluation.report import write_report
from workbench.evaluation.result import BASE, Interval
from workbench.evaluation.task_result import (
    GENERAL,
    GENERAL_LIMIT,
    GENERAL_TASKS,
    TASK_RESULTS,
    TaskEvaluation,
    TaskMetric,
)
from workbench.progress import Progress, Report
from workbench.recipe.text import on_base
from workbench.runs.folder import find_run
from workbench.storage.paths import Home

# Sums of floating-point numbers in another order.
_SAME = 1e-9

Outcome = Mapping[str, Any]
"""What ``lm_eval.evaluate`` returns for one model."""


def evaluate_tasks(
    home: Home, request: EvaluateRequest, base: LoadedBase | None, load: Load, report: Report, cancelled: StopSignal
) -> Path:
    """Evaluate a run's base and adapters on tasks, and save the results and a new report in the run's folder.

    Takes the arguments of :func:`~workbench.engine.generation.evaluate.evaluate`.

    Raises:
        WorkbenchError: lm-eval is not installed, or a task or its data is not there; as well as what ``evaluate``
            raises. Nothing is kept if it is cancelled.
    """
    check_lm_eval()
    from lm_eval.evaluator import evaluate as lm_evaluate

    from workbench.engine.generation.task_model import TaskModel, load_tasks, prepare_tasks, task_folder

    settings = request.tasks
    assert settings is not None
    run = find_run(home, request.run)
    recipe = on_base(run.recipe_as_run(), request.base)
    candidates = find_candidates(home, run, request)
    report(Progress(phase="loading tasks", detail=", ".join(settings.names)))
    folder, names = task_folder(settings.folder), expanded(settings.names)
    limit = GENERAL_LIMIT if settings.limit is None and GENERAL in settings.names else settings.limit
    loaded = load_tasks(names, folder)
    bases = BaseProvider(home, recipe, base, load, report, cancelled)
    batch_size = recipe.training.per_device_train_batch_size
    outcomes: dict[str, Outcome] = {}
    for number, candidate in enumerate(candidates):
        with bases.activated(candidate, exact_weights=True) as model, timed(candidate.seconds):
            template = run_template(model, run, recipe) if settings.chat_template else None
            progress = share_of_progress(report, number, candidates)
            was_training = model.active.training
            try:
                prepare_tasks(loaded, settings.num_fewshot)
                outcomes[candidate.name] = lm_evaluate(
                    TaskModel(model, batch_size, template.source if template else None, progress, cancelled),
                    loaded,
                    limit=limit,
                    bootstrap_iters=0,
                    system_instruction=template.system if template else None,
                    apply_chat_template=settings.chat_template,
                    fewshot_as_multiturn=settings.chat_template,
                )
            finally:
                model.active.train(was_training)
    report(Progress(phase="computing intervals"))
    result = TaskEvaluation(
        time=time.time(),
        run=run.id,
        model=recipe.model.source,
        tasks=settings.names,
        folder=folder,
        limit=limit,
        num_fewshot=settings.num_fewshot,
        chat_template=settings.chat_template,
        batch_size=batch_size,
        seed=request.seed,
        draws=DRAWS,
        level=LEVEL,
        models=[candidate.name for candidate in candidates],
        seconds=_seconds(candidates),
        metrics=task_metrics(outcomes, draws=DRAWS, seed=request.seed),
        parts=_parts(outcomes[BASE]),
        versions=_versions(settings, outcomes[BASE]),
    )
    file = TASK_RESULTS.save(run, result)
    write_report(home, run)
    return file


def check_lm_eval() -> None:
    """Raise WorkbenchError if lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise WorkbenchError(
            "Evaluating on tasks needs lm-eval, which is not installed.",
            "Run `pip install 'loraworkbench[tasks]'` in the workbench's environment, then `loraworkbench engine "
            "restart`.",
            kind="no_lm_eval",
        )


def expanded(names: Sequence[str]) -> list[str]:
    """The names of tasks, without repetitions; ``general`` stands for its tasks."""
    return list(dict.fromkeys(part for name in names for part in (GENERAL_TASKS if name == GENERAL else (name,))))


def task_metrics(outcomes: Mapping[str, Outcome], *, draws: int, seed: int) -> list[TaskMetric]:
    """The metrics of all models from lm-eval's outcomes, groups first.

    A metric that is the mean of one number per item gets intervals, and McNemar's test if all are 0 or 1.
    """
    reference = outcomes[BASE]
    groups = reference["group_subtasks"]
    names = [*groups, *(name for name in reference["results"] if name not in groups)]
    return [
        _metric(outcomes, task, key, draws, seed)
        for task in names
        for key, value in reference["results"].get(task, {}).items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    ]


def _metric(outcomes: Mapping[str, Outcome], task: str, key: str, draws: int, seed: int) -> TaskMetric:
    name, _, picked = key.partition(",")
    leaves = _leaves(outcomes[BASE], task)
    stated = {model: float(outcome["results"][task][key]) for model, outcome in outcomes.items()}
    items = {model: _items(outcome, leaves, name, picked) for model, outcome in outcomes.items()}
    values = {model: Interval(value=value) for model, value in stated.items()}
    minus = {model: Interval(value=stated[BASE] - value) for model, value in stated.items() if model != BASE}
    flipped = {}
    by_item = {model: list(found.values()) for model, found in items.items() if found is not None}
    is_mean = len(by_item) == len(items) and all(
        found and abs(sum(found) / len(found) - stated[model]) < _SAME for model, found in by_item.items()
    )
    if is_mean:
        values, minus = paired_means(by_item, draws=draws, seed=seed)
        pairs = {model: flips(by_item[BASE], found) for model, found in by_item.items() if model != BASE}
        flipped = {model: one for model, one in pairs.items() if one is not None}
    higher = {outcomes[BASE]["higher_is_better"].get(leaf, {}).get(name) for leaf in leaves}
    return TaskMetric(
        task=task,
        metric=name,
        filter=picked,
        items=sum(outcomes[BASE]["n-samples"][leaf]["effective"] for leaf in leaves),
        higher_is_better=higher.pop() if len(higher) == 1 else None,
        values=values,
        minus=minus,
        flips=flipped,
    )


def _leaves(outcome: Outcome, task: str) -> list[str]:
    """The tasks of a group, also of the groups in it; a task alone."""
    groups = outcome["group_subtasks"]
    return [leaf for part in groups[task] for leaf in _leaves(outcome, part)] if task in groups else [task]


def _items(outcome: Outcome, tasks: Sequence[str], metric: str, picked: str) -> dict[tuple[str, int], float] | None:
    """A metric of each item, by task and item; None if it is not a number of each."""
    found: dict[tuple[str, int], float] = {}
    for task in tasks:
        for sample in outcome["samples"][task]:
            if sample["filter"] != picked:
                continue
            try:
                found[task, sample["doc_id"]] = float(sample[metric])
            except (KeyError, TypeError, ValueError):
                return None
    return dict(sorted(found.items()))


def _parts(outcome: Outcome) -> list[str]:
    """The tasks and groups that a group with metrics of its own sums up."""
    groups = outcome["group_subtasks"]
    return sorted({part for group in groups if group in outcome.get("groups", {}) for part in groups[group]})


def _seconds(candidates: Sequence[Candidate]) -> dict[str, float]:
    return {candidate.name: round(sum(candidate.seconds), 3) for candidate in candidates}


def _versions(settings: TaskSettings, outcome: Outcome) -> dict[str, str]:
    tasks = {f"task {name}": str(version) for name, version in outcome["versions"].items() if version is not None}
    return {
        "loraworkbench": __version__,
        "lm_eval": importlib.metadata.version("lm_eval"),
        **library_versions(),
        **tasks,
    }
