"""The results of a run on lm-eval's tasks, stored as ``tasks/<n>.json`` in the run's folder."""

from typing import Literal

from pydantic import Field

from workbench.evaluation.numbered_files import NumberedFiles, NumberedResult, StoredModel
from workbench.evaluation.result import Interval

GENERAL = "general"
"""The name that stands for :data:`GENERAL_TASKS`."""

GENERAL_TASKS = ("arc_easy", "boolq", "hellaswag", "piqa", "winogrande")
"""What did it forget? Short multiple-choice tasks about common knowledge, which most base models can do."""

GENERAL_LIMIT = 200
"""Items of each of :data:`GENERAL_TASKS` if no limit is given."""


class Flips(StoredModel):
    """How a model's right and wrong items differ from the base's.

    Attributes:
        gained: items that only this model has right. lost: items that only the base has right.
        p: of McNemar's exact test, two-sided: how likely so uneven a split is if both are equally good.
    """

    gained: int
    lost: int
    p: float


class TaskMetric(StoredModel):
    """One metric of one task, or of a group of tasks.

    Attributes:
        filter: how lm-eval took the answer from a reply; ``none`` for the reply itself.
        items: how many were evaluated, the same for all models.
        higher_is_better: None if the task does not say so.
        values: by model; without bounds if the metric is not a mean over items.
        minus: base − model on the same items, of each model but the base.
        flips: where every item is right or wrong.
    """

    task: str
    metric: str
    filter: str = "none"
    items: int
    higher_is_better: bool | None = None
    values: dict[str, Interval]
    minus: dict[str, Interval] = Field(default={})
    flips: dict[str, Flips] = Field(default={})

    @property
    def name(self) -> str:
        """The metric's name, with its filter if it has one."""
        return self.metric if self.filter == "none" else f"{self.metric}, {self.filter}"


class TaskEvaluation(NumberedResult):
    """One evaluation of a run on tasks.

    Attributes:
        tasks: as they were requested. folder: with tasks of the user's; empty for lm-eval's own.
        limit: the most items of each task; None for all. num_fewshot: None for what each task says.
        chat_template: whether prompts were put into the run's chat template.
        models: the evaluated models, the base first. seconds: by model.
        metrics: of groups first, then of each task.
        parts: names of tasks that a group in ``metrics`` sums up.
    """

    time: float
    run: str
    model: str
    tasks: list[str]
    folder: str = ""
    limit: int | None = None
    num_fewshot: int | None = None
    chat_template: bool = False
    batch_size: int
    seed: int
    draws: int
    level: float
    models: list[str]
    seconds: dict[str, float]
    metrics: list[TaskMetric]
    parts: list[str] = Field(default=[])
    versions: dict[str, str] = Field(default={})
    kind: Literal["tasks"] = "tasks"


TASK_RESULTS = NumberedFiles("tasks", TaskEvaluation)
