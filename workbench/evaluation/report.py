"""Writes the report of a run into its folder: ``report.md``, ``report.json`` and ``report.svg``.

Everything comes from the recipe, the journal, the newest evaluations and the ratings; no model is loaded. Files
and folders of this machine are named by the last part of their path only.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from pathlib import Path

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.evaluation.chart import Line, curve_picture
from workbench.evaluation.preferences import Preference, preferences_of
from workbench.evaluation.provenance import Provenance, provenance_of, public_name
from workbench.evaluation.report_data import MemoryData, ReportData, UtilisationData
from workbench.evaluation.report_text import report_markdown
from workbench.evaluation.result import Evaluation, newest_evaluation
from workbench.evaluation.task_result import TASK_RESULTS, TaskEvaluation
from workbench.models.sources import find_local
from workbench.runs.curves.compared import ExactCurve
from workbench.runs.events import Step, memory_bytes
from workbench.runs.folder import RunFolder
from workbench.runs.library.calibration import Comparison
from workbench.runs.replay import Replay, held_out_losses
from workbench.runs.step_times import StepTimes
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

PICTURE = "report.svg"

# A record may contain lone surrogates, which UTF-8 cannot encode.
_ENCODING_ERRORS = "backslashreplace"


@dataclass
class Curves:
    """The curves and times of a run for its report; a step that was trained again counts with its last values.

    Attributes:
        train, held_out: loss by step. seconds: training time of each logged point, by step.
        host_peak: the process's peak memory in bytes. times: of all steps, also those that a resume discarded.
        peak_flops: the device's peak FLOP/s; no_peak says why it is unknown.
    """

    train: dict[int, float] = field(default_factory=dict)
    held_out: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    host_peak: int | None = None
    times: StepTimes = field(default_factory=StepTimes)
    peak_flops: float | None = None
    no_peak: str | None = None


@dataclass(frozen=True)
class Report:
    """The files of a report."""

    markdown: Path
    json: Path
    picture: Path


def write_report(
    home: Home, run: RunFolder, report: Callable[[str, float], None] = lambda name, fraction: None
) -> Report:
    """Write the report of a run, replacing an older one.

    Args:
        report: called with the name of the data file being read and the progress, 0 to 1.

    Raises:
        WorkbenchError: the recipe cannot be read, the run has not started, or the report cannot be written.
    """
    recipe = run.recipe_as_run()
    if not run.journal.is_file():
        raise WorkbenchError(
            f"Run {run.id} has no journal, so there is nothing to report.", "Start it first.", kind="no_journal"
        )
    facts = provenance_of(run, recipe, find_local(home, recipe.model), report)
    curves = read_curves(run)
    newest = newest_evaluation(run)
    evaluation = _without_local_paths(newest) if newest else None
    newest_tasks = TASK_RESULTS.newest(run)
    tasks = _tasks_without_local_paths(newest_tasks) if newest_tasks else None
    preferences = preferences_of(run)
    data = report_data(facts, curves, evaluation, tasks, preferences)
    lines = [Line("training", list(curves.train.items())), Line("held out", list(curves.held_out.items()), marked=True)]
    files = Report(run.path / "report.md", run.path / "report.json", run.path / PICTURE)
    try:
        write_text(files.picture, curve_picture(run.id, lines), errors=_ENCODING_ERRORS)
        write_text(files.json, json.dumps(data, ensure_ascii=False, indent=1) + "\n", errors=_ENCODING_ERRORS)
        write_text(
            files.markdown, report_markdown(data, evaluation, PICTURE, tasks, preferences), errors=_ENCODING_ERRORS
        )
    except OSError as error:
        raise WorkbenchError(
            f"The report cannot be written to {run.path}: {error.strerror or error}.",
            "Free some disk space, or check the folder's permissions.",
            kind="disk",
        ) from None
    return files


def read_curves(run: RunFolder) -> Curves:
    """Read the curves of a run from its journal, without the points that a resume discarded."""
    points = _ReportedCurve()
    replay = Replay.of(run.journal, points)
    return Curves(
        train=points.by_step(points.losses),
        seconds=points.by_step(points.durations),
        held_out=dict(sorted(held_out_losses(replay).items())),
        times=points.times,
        host_peak=points.host_peak,
        peak_flops=replay.facts.peak_flops,
        no_peak=replay.facts.no_peak,
    )


class _ReportedCurve(ExactCurve):
    """Collects the curve's points, and the times of all steps, also discarded ones."""

    def __init__(self) -> None:
        super().__init__()
        self.times = StepTimes()
        self.host_peak: int | None = None

    def add(self, step: Step) -> None:
        super().add(step)
        self.times.add(step)
        if peak := memory_bytes(step.host, "peak"):
            self.host_peak = max(self.host_peak or 0, peak)

    @property
    def durations(self) -> list[float]:
        """Seconds of each point."""
        return [after - before for before, after in pairwise([0.0, *self.seconds])]

    def by_step(self, values: Sequence[float]) -> dict[int, float]:
        """The finite values, by step."""
        return {int(step): value for step, value in zip(self.steps, values, strict=True) if isfinite(value)}


def report_data(
    facts: Provenance,
    curves: Curves,
    evaluation: Evaluation | None,
    tasks: TaskEvaluation | None,
    preferences: Sequence[Preference],
) -> ReportData:
    """The content of ``report.json``."""
    summary = facts.summary
    seconds = sum(curves.seconds.values())
    return {
        **facts.as_json(),
        "reported_with": {"loraworkbench": __version__},
        "written": round(time.time(), 3),
        "times": {
            "started": summary.started,
            "ended": summary.ended,
            "seconds": summary.ended - summary.started if summary.ended and summary.started else None,
            "seconds_in_steps": seconds or None,
            "tokens_per_second": summary.tokens / seconds if seconds and summary.tokens else None,
        },
        "utilisation": _utilisation(curves),
        "memory": _memory(facts, curves),
        "curve": {
            "training": [list(point) for point in curves.train.items()],
            "held_out": [list(point) for point in curves.held_out.items()],
        },
        "evaluation": evaluation.model_dump(mode="json", exclude={"per_record"}) if evaluation else None,
        "tasks": tasks.model_dump(mode="json") if tasks else None,
        "preferences": [preference.model_dump(mode="json") for preference in preferences],
    }


def _utilisation(curves: Curves) -> UtilisationData | None:
    times = curves.times.as_json()
    if times is None:
        return None
    utilisation = UtilisationData(
        shares=times["shares"], padding=times["padding"], flops=times["flops"], mfu=times["mfu"], hfu=times["hfu"]
    )
    if curves.peak_flops is not None or curves.no_peak is not None:
        utilisation["peak_flops"], utilisation["no_peak"] = curves.peak_flops, curves.no_peak
    return utilisation


def _memory(facts: Provenance, curves: Curves) -> MemoryData:
    predicted, measured = facts.summary.predicted_peak or {}, facts.summary.measured_peak or {}
    compared = Comparison.of(facts.summary)
    return {
        "predicted_allocated": predicted.get("allocated_bytes"),
        "predicted_terms": predicted.get("terms"),
        "predicted_by": predicted.get("method"),
        "measured_allocated": measured.get("allocated"),
        "measured_reserved": measured.get("reserved"),
        "error": compared.error if compared else None,
        "suspect": compared.suspect if compared else "",
        "host_peak": curves.host_peak,
    }


def _without_local_paths(evaluation: Evaluation) -> Evaluation:
    """The evaluation with this machine's paths reduced to file names."""
    judged = [one.model_copy(update={"folder": one.folder and public_name(one.folder)}) for one in evaluation.judged]
    sources = " + ".join(map(public_name, evaluation.source.split(" + ")))
    names = {"source": sources, "model": public_name(evaluation.model)}
    return evaluation.model_copy(update={**names, "judged": judged})


def _tasks_without_local_paths(tasks: TaskEvaluation) -> TaskEvaluation:
    return tasks.model_copy(
        update={"model": public_name(tasks.model), "folder": tasks.folder and public_name(tasks.folder)}
    )
