"""The types of the JSON data that exports and reports contain: ``export.json`` and ``report.json``."""

from collections.abc import Mapping

from typing_extensions import TypedDict

from workbench.runs.events import MeasuredPeak, Number, PredictedPeak


class BaseData(TypedDict):
    """The base model: name, origin, commit on the hub, license, checksum, and its folder inside the repository."""

    source: str
    origin: str
    revision: str | None
    licence: str
    sha256: str
    subfolder: str


class FileData(TypedDict):
    """A source of records; ``sha256`` is empty if it is not a local file."""

    name: str
    bytes: int
    sha256: str


class PrecisionData(TypedDict, total=False):
    """Dtypes and sizes that the run's journal states."""

    base: str | None
    compute_dtype: str | None
    adapter_dtype: str | None
    trainable_parameters: int | None
    padding_free: bool | None
    batches: str | None


class EvaluationData(TypedDict):
    """An evaluation during the run."""

    step: int
    loss: Number
    perplexity: Number
    token_accuracy: Number
    accuracy: Number
    macro_f1: Number
    records: int
    tokens: int


class ResultsData(TypedDict):
    """Results of the run."""

    state: str
    steps: int
    tokens: int
    loss: Number
    held_out_perplexity: dict[str, Number]
    evaluations: list[EvaluationData]
    predicted_peak: PredictedPeak | None
    measured_peak: MeasuredPeak | None


class ProvenanceData(TypedDict):
    """The content of ``export.json``."""

    run: str
    exported_with: dict[str, str]
    base: BaseData
    data: list[FileData]
    seed: int
    recipe: Mapping[str, object]
    versions: Mapping[str, str]
    hardware: Mapping[str, object]
    precision: PrecisionData
    records: Mapping[str, object]
    changed_in_mid_run: list[str]
    figures: ResultsData


class TimesData(TypedDict):
    """Unix times and durations in seconds."""

    started: float | None
    ended: float | None
    seconds: float | None
    seconds_in_steps: float | None
    tokens_per_second: float | None


class UtilisationData(TypedDict, total=False):
    """Where the time of the steps went, and the share of the device's peak that was used."""

    shares: dict[str, float]
    padding: float | None
    flops: float | None
    mfu: float | None
    hfu: float | None
    peak_flops: float | None
    no_peak: str | None


class MemoryData(TypedDict):
    """Predicted and measured peak memory in bytes, and the relative error of the prediction."""

    predicted_allocated: int | None
    predicted_terms: dict[str, int] | None
    predicted_by: str | None
    measured_allocated: int | None
    measured_reserved: int | None
    error: float | None
    suspect: str
    host_peak: int | None


class CurveData(TypedDict):
    """The loss curves as [step, loss] points."""

    training: list[list[float]]
    held_out: list[list[float]]


class ReportData(ProvenanceData):
    """The content of ``report.json``."""

    reported_with: dict[str, str]
    written: float
    times: TimesData
    utilisation: UtilisationData | None
    memory: MemoryData
    curve: CurveData
    evaluation: dict[str, object] | None
    tasks: dict[str, object] | None
    preferences: list[dict[str, object]]
