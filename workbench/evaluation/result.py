"""Stores the results of evaluations in the run's folder, as ``evaluations/<n>.json``, and reads them."""

from typing import Literal

from pydantic import Field

from workbench.evaluation.numbered_files import NumberedFiles, NumberedResult, StoredModel

BASE = "base"
"""The name of the base model among the evaluated models."""


class Interval(StoredModel):
    """A metric with its bootstrap interval over records; without bounds if a resampled value is not finite."""

    value: float
    low: float | None = None
    high: float | None = None


class ModelMetrics(StoredModel):
    """The metrics of one model.

    Attributes:
        loss: mean negative log-likelihood in nats per labeled token. perplexity: exp(loss).
        token_accuracy: share of labeled tokens that the model predicted correctly.
        accuracy: of texts with a label, the share whose likeliest label is the right one. macro_f1: the mean F1 of all
            labels. Of classifiers only, which have none of the above.
        preference_accuracy: of pairs, the share whose chosen response has the higher mean log-probability per token.
        preference_margin: the mean difference of both, in nats per token. None if the records are no pairs. Of reward
            models: the same of scores.
        exact, contains: share of replies that equal, or contain, their reference. rouge_l: mean ROUGE-L. None if no
            record has a reference reply.
    """

    loss: Interval | None = None
    perplexity: Interval | None = None
    token_accuracy: Interval | None = None
    accuracy: Interval | None = None
    macro_f1: Interval | None = None
    preference_accuracy: Interval | None = None
    preference_margin: Interval | None = None
    exact: Interval | None = None
    contains: Interval | None = None
    rouge_l: Interval | None = None


class EvaluatedModel(StoredModel):
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
    seconds: list[float] = Field(default=[])


class AnsweredPrompt(StoredModel):
    """A prompt with each model's reply. ``fixed``: one of the fixed prompts, not a record."""

    prompt: str
    replies: dict[str, str]
    reference: str | None = None
    where: str = ""
    fixed: bool = False


class PerRecord(StoredModel):
    """The sums behind the metrics: each list has one entry per record; ``loss`` and ``correct`` are by model name.

    Of pairs these are of the chosen responses, and ``rejected_tokens`` and ``rejected`` are tokens and losses of the
    rejected ones. Of classifiers: ``label`` and ``predicted``. Of reward models: ``scores``, and scores in
    ``rejected``.
    """

    where: list[str] = Field(default=[])
    tokens: list[int] = Field(default=[])
    loss: dict[str, list[float]] = Field(default={})
    correct: dict[str, list[int]] = Field(default={})
    rejected_tokens: list[int] = Field(default=[])
    rejected: dict[str, list[float]] = Field(default={})
    label: list[str] = Field(default=[])
    predicted: dict[str, list[str]] = Field(default={})
    scores: dict[str, list[float]] = Field(default={})


class Evaluation(NumberedResult):
    """One evaluation of a run. Field names are those of the stored file.

    Attributes:
        time: Unix time of its end.
        source: name of the records' source. own: whether they are the run's own held-out records.
        records, tokens: how many were evaluated; ``tokens`` are labeled tokens. more: the source has more records.
        planned: how many records were to be evaluated, if it was stopped early; None if it was not.
        left_out: records that are invalid or lost their reply to truncation at ``max_length`` tokens.
        referenced: replies that were compared with a reference. too_long: prompts that leave no room in the context.
        draws, level: of the bootstrap intervals.
        judged: the evaluated models, the base first; for adapters with a head of their own, a baseline without a model.
        answered: the prompts with all replies.
    """

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
    versions: dict[str, str] = Field(default={})
    kind: Literal["evaluation"] = "evaluation"


EVALUATIONS = NumberedFiles("evaluations", Evaluation)
save_evaluation = EVALUATIONS.save
evaluations = EVALUATIONS.paths
newest_evaluation = EVALUATIONS.newest
read_evaluation = EVALUATIONS.read
