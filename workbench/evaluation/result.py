"""What an evaluation found, as it is kept in the run's folder: ``evaluations/<n>.json``."""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder
from workbench.storage.atomic import write_text
from workbench.storage.folders import entries

BASE = "base"
"""The name of the base model among those that are judged."""

_NUMBERED = re.compile(r"(\d+)\.json")


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings")


class Interval(_Kept):
    """A figure, and where it may lie: the bootstrap interval over records. No bounds where none could be drawn."""

    value: float
    low: float | None = None
    high: float | None = None


class Figures(_Kept):
    """What is measured of one model.

    Attributes:
        loss: mean negative log-likelihood in nats a labelled token. perplexity: exp(loss).
        token_accuracy: share of labelled tokens that were the model's first choice.
        exact, contains: share of replies that are, or hold, their reference. rouge_l: mean ROUGE-L. None where no
            record has a reference reply.
    """

    loss: Interval
    perplexity: Interval
    token_accuracy: Interval
    exact: Interval | None = None
    contains: Interval | None = None
    rouge_l: Interval | None = None


class Judged(_Kept):
    """One model that took part.

    Attributes:
        name: ``base``, a run's id, ``run@40`` for its checkpoint of step 40, or the name of an adapter folder.
        folder: the adapter's; None for the base.
        minus: base − this one, of each figure, on the same records; None for the base itself.
        seconds: what the held-out tokens took, and the replies.
    """

    name: str
    folder: str | None
    figures: Figures
    minus: Figures | None = None
    seconds: list[float] = []


class Answered(_Kept):
    """One prompt and what each model replied. ``fixed``: it is no record, but one of the fixed prompts."""

    prompt: str
    replies: dict[str, str]
    reference: str | None = None
    where: str = ""
    fixed: bool = False


class PerRecord(_Kept):
    """The sums that the figures are made of: one entry a record, in each list; by name of the model."""

    where: list[str] = []
    tokens: list[int] = []
    loss: dict[str, list[float]] = {}
    correct: dict[str, list[int]] = {}


class Evaluation(_Kept):
    """One evaluation of a run.

    Attributes:
        number: counts from 1 in each run; None until it is kept.
        time: Unix time in seconds of its end.
        source: the records, by the name that was given. own: they are the run's own held-out part.
        records, tokens: what the figures are of; ``tokens`` are the labelled ones. more: the source has more records.
        left_out: records that cannot be read or lost their reply to the cut at ``max_length`` tokens.
        referenced: replies that were compared with a reference. too_long: prompts that leave no room in the context.
    """

    number: int | None = None
    time: float
    run: str
    model: str
    source: str
    own: bool
    records: int
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
    judged: list[Judged]
    answered: list[Answered]
    per_record: PerRecord = Field(default_factory=PerRecord)
    versions: dict[str, str] = {}
    kind: Literal["evaluation"] = "evaluation"


def evaluations_folder(run: RunFolder) -> Path:
    """Where a run's evaluations are kept."""
    return run.path / "evaluations"


def keep(run: RunFolder, evaluation: Evaluation) -> Path:
    """Write an evaluation under the next number; it is there whole or not at all.

    Raises:
        WorkbenchError: the disk refuses.
    """
    folder = evaluations_folder(run)
    try:
        folder.mkdir(exist_ok=True)
        # Only the engine evaluates, one run at a time: nobody takes the number meanwhile.
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
    """The last one that can be read; None where there is none."""
    for path in reversed(evaluations(run)):
        try:
            return read_evaluation(path)
        except WorkbenchError:
            continue
    return None


def read_evaluation(path: Path) -> Evaluation:
    """What :func:`keep` wrote.

    Raises:
        WorkbenchError: it is damaged.
    """
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise WorkbenchError(
            f"{path} is not a readable evaluation.", "Evaluate the run again.", kind="damaged"
        ) from None


def _numbers(folder: Path) -> list[int]:
    return [int(match[1]) for entry in entries(folder) if (match := _NUMBERED.fullmatch(entry.name))]
