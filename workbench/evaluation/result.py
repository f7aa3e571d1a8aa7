"""Stores the results of evaluations in the run's folder, as ``evaluations/<n>.json``, and reads them."""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder
from workbench.storage.atomic import write_text
from workbench.storage.folders import entries

BASE = "base"
"""The name of the base model among the evaluated models."""

_NUMBERED = re.compile(r"(\d+)\.json")


class _StoredModel(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings")


class Interval(_StoredModel):
    """A metric with its bootstrap interval over records; without bounds if a resampled value is not finite."""

    value: float
    low: float | None = None
    high: float | None = None


class ModelMetrics(_StoredModel):
    """The metrics of one model.

    Attributes:
        loss: mean negative log-likelihood in nats per labeled token. perplexity: exp(loss).
        token_accuracy: share of labeled tokens that the model predicted correctly.
        exact, contains: share of replies that equal, or contain, their reference. rouge_l: mean ROUGE-L. None if no
            record has a reference reply.
    """

    loss: Interval
    perplexity: Interval
    token_accuracy: Interval
    exact: Interval | None = None
    contains: Interval | None = None
    rouge_l: Interval | None = None


class EvaluatedModel(_StoredModel):
    """One of the evaluated models.

    Attributes:
        name: ``base``, a run's id, ``run@40`` for its checkpoint of step 40, or the name of an adapter folder.
        folder: the adapter's folder; None for the base.
        figures: its metrics. minus: base − this model of each metric, on the same records; None for the base.
        seconds: time for the held-out tokens, and for the replies.
    """

    name: str
    folder: str | None
    figures: ModelMetrics
    minus: ModelMetrics | None = None
    seconds: list[float] = []


class AnsweredPrompt(_StoredModel):
    """A prompt with each model's reply. ``fixed``: one of the fixed prompts, not a record."""

    prompt: str
    replies: dict[str, str]
    reference: str | None = None
    where: str = ""
    fixed: bool = False


class PerRecord(_StoredModel):
    """The sums behind the metrics: each list has one entry per record; ``loss`` and ``correct`` are by model name."""

    where: list[str] = []
    tokens: list[int] = []
    loss: dict[str, list[float]] = {}
    correct: dict[str, list[int]] = {}


class Evaluation(_StoredModel):
    """One evaluation of a run. Field names are those of the stored file.

    Attributes:
        number: counts from 1 in each run; None before it is saved.
        time: Unix time of its end.
        source: name of the records' source. own: whether they are the run's own held-out records.
        records, tokens: how many were evaluated; ``tokens`` are labeled tokens. more: the source has more records.
        planned: how many records were to be evaluated, if it was stopped early; None if it was not.
        left_out: records that are invalid or lost their reply to truncation at ``max_length`` tokens.
        referenced: replies that were compared with a reference. too_long: prompts that leave no room in the context.
        draws, level: of the bootstrap intervals.
        judged: the evaluated models, the base first. answered: the prompts with all replies.
    """

    number: int | None = None
    time: float
    run: str
    model: str
    source: str
    own: bool
    records: int
    planned: int | None = None
    more: bool
    left_out: int
    tokens: int
    max_length: int
    referenced: int
    too_long: int
    max_new_tokens: int
    seed: int
    draws: int
    level: float
    judged: list[EvaluatedModel]
    answered: list[AnsweredPrompt]
    per_record: PerRecord = Field(default_factory=PerRecord)
    versions: dict[str, str] = {}
    kind: Literal["evaluation"] = "evaluation"


def evaluations_folder(run: RunFolder) -> Path:
    """The folder of a run's evaluations."""
    return run.path / "evaluations"


def save_evaluation(run: RunFolder, evaluation: Evaluation) -> Path:
    """Save an evaluation atomically under the next number.

    Raises:
        WorkbenchError: the file cannot be written.
    """
    folder = evaluations_folder(run)
    try:
        folder.mkdir(exist_ok=True)
        # Only the engine evaluates, one run at a time, so the number stays free.
        number = max(_numbers(folder), default=0) + 1
        text = evaluation.model_copy(update={"number": number}).model_dump_json(indent=1)
        path = folder / f"{number}.json"
        write_text(path, text + "\n", errors="backslashreplace")
    except OSError as error:
        raise WorkbenchError(
            f"The evaluation cannot be saved in {folder}: {error.strerror or error}.",
            "Free some disk space and evaluate again.",
            kind="disk",
        ) from None
    return path


def evaluations(run: RunFolder) -> list[Path]:
    """The files of a run's evaluations, oldest first."""
    folder = evaluations_folder(run)
    return [folder / f"{number}.json" for number in sorted(_numbers(folder))] if folder.is_dir() else []


def newest_evaluation(run: RunFolder) -> Evaluation | None:
    """The newest evaluation that can be read; None without one."""
    for path in reversed(evaluations(run)):
        try:
            return read_evaluation(path)
        except WorkbenchError:
            continue
    return None


def read_evaluation(path: Path) -> Evaluation:
    """Read an evaluation that :func:`save_evaluation` wrote.

    Raises:
        WorkbenchError: the file is damaged or missing.
    """
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise WorkbenchError(
            f"{path} is not a readable evaluation.", "Evaluate the run again.", kind="damaged"
        ) from None


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for entry in entries(folder) if (match := _NUMBERED.fullmatch(entry.name))]
