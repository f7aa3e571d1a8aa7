"""The outputs about runs.

A key is never renamed or removed: programs read them. A new one may be added.
"""

from collections.abc import Mapping
from typing import Any, NotRequired

from typing_extensions import TypedDict

from workbench.evaluation.preferences import Preference
from workbench.evaluation.result import Interval
from workbench.runs.events import MeasuredPeak, Number, PredictedPeak
from workbench.runs.library.calibration import Comparison
from workbench.runs.library.comparison import RunMetricsData
from workbench.runs.summary import RunState


class StartedRunLine(TypedDict):
    """A run in the background.

    Attributes:
        seq: number of the last event in its journal before the start; -1 if it is new.
        job: number of the job of Slurm, with ``--slurm``.
    """

    run: str
    folder: str
    seq: int
    job: NotRequired[str]


class ClusterFilesLine(TypedDict):
    """The written files: accelerate's configuration, each machine's script, and the Slurm script."""

    folder: str
    config: str
    node: str
    slurm: str


class ControlLine(TypedDict):
    """A request to the live run.

    Attributes:
        acknowledged_by: the event of the journal that confirms it; null for ``kill``.
    """

    run: str
    action: str
    value: float | None
    acknowledged_by: str | None


class RunLine(TypedDict):
    """A run.

    Attributes:
        started, ended: Unix times.
        loss: of the newest logged step.
        perplexities: ``[step, held-out perplexity]`` of the evaluations, the base's at step 0.
        preferences: ``[step, preference accuracy]`` of the same, in preference training.
        accuracies: ``[step, accuracy]`` of the same, in classification.
        peak_vram: in bytes; 0 without a GPU.
        reason, cure: why it ended, and what to do about it.
        is_unpriced: the prediction of the peak does not cover its steps.
        host: the machine that it runs on as a job of Slurm; empty for other runs.
        idle_seconds: while it was paused or interrupted. paused_at: Unix time of the pause that it is in.
        last_event: Unix time of its newest event.
        is_partial: always false here.
        settings: some values of its recipe, by dotted key.
    """

    id: str
    state: RunState
    model: str
    started: float | None
    ended: float | None
    step: int
    max_steps: int
    phase: str
    loss: Number
    perplexities: list[list[Any]]
    preferences: list[list[Any]]
    accuracies: list[list[Any]]
    tokens: int
    peak_vram: int
    eta_seconds: float | None
    tokens_per_second: float | None
    reason: str
    cure: str
    predicted_peak: PredictedPeak | None
    is_unpriced: bool
    measured_peak: MeasuredPeak | None
    host: str
    idle_seconds: float
    paused_at: float | None
    last_event: float | None
    is_partial: bool
    settings: dict[str, Any]
    name: str
    tags: list[str]
    folder: str


class CurveLine(TypedDict):
    """The loss over an axis, as ``[x, loss]``. ``by``: step, tokens or time."""

    by: str
    train: list[list[float]]
    eval: list[list[float]]


class ComparedRun(TypedDict):
    """A compared run."""

    id: str
    name: str
    tags: list[str]
    figures: RunMetricsData
    curve: CurveLine


class ComparedRuns(TypedDict):
    """Compared runs.

    Attributes:
        differences: by dotted key, the value of each run as text.
    """

    runs: list[ComparedRun]
    differences: dict[str, list[str]]


class TrashedLine(TypedDict):
    """A run in the trash.

    Attributes:
        deleted: Unix time. elsewhere: the run's folder, if only a link to it was moved; else null.
    """

    id: str
    name: str
    deleted: float
    bytes: int
    elsewhere: str | None


class DemoReply(TypedDict):
    """A prompt with the replies before and after the training."""

    prompt: str
    base: str
    tuned: str


class DemoPreference(TypedDict):
    """Metrics of one model on the held-out pairs."""

    preference_accuracy: Interval | None
    preference_margin: Interval | None


class DemoResult(TypedDict):
    """The last line of the demo.

    Attributes:
        perplexity: held-out, ``base`` and ``tuned``.
        start: with ``--objective dpo``, the run that it started from; preferences: by model.
    """

    run: str
    adapter: str
    perplexity: NotRequired[Mapping[str, Number]]
    replies: NotRequired[list[DemoReply]]
    start: NotRequired[str]
    preferences: NotRequired[dict[str, DemoPreference]]


class JudgedPreferences(TypedDict):
    """What a judge preferred.

    Attributes:
        unreadable: pairs without a verdict. file: with all ratings.
    """

    preferences: list[Preference]
    unreadable: int
    file: str


class CalibrationData(TypedDict):
    """Predicted and measured peaks of the runs.

    Attributes:
        count: runs with both. mean, bias, worst: of the relative errors; null without a run.
    """

    count: int
    mean: float | None
    bias: float | None
    worst: float | None
    runs: list[Comparison]
