"""A run told to a colleague: ``report.md``, ``report.json`` and ``report.svg`` in its folder.

Everything is from the recipe, the journal and the newest evaluation; nothing is computed on a model. Files and folders
of this machine are named by their last part only.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.errors import WorkbenchError
from workbench.evaluation.chart import Line, curve_picture
from workbench.evaluation.provenance import Provenance, provenance_of, public_name
from workbench.evaluation.report_text import report_markdown
from workbench.evaluation.result import Evaluation, newest_evaluation
from workbench.models.sources import find_local
from workbench.runs.curves import ExactCurve
from workbench.runs.events import Step
from workbench.runs.folder import RunFolder
from workbench.runs.library.calibration import Comparison
from workbench.runs.replay import Replay, held_out_losses
from workbench.runs.step_times import StepTimes
from workbench.storage.atomic import write_text
from workbench.storage.paths import Home

PICTURE = "report.svg"

# A record may hold half a character, which UTF-8 has no bytes for.
_UNKNOWN = "backslashreplace"


@dataclass
class Curves:
    """Loss over steps; a step that was trained again counts as it was the last time.

    ``seconds`` are those of each point of the curve, ``host_peak`` the most memory that the process had, ``times`` are
    of all steps that were made; ``device_peak`` is what the device could do, or why that is not known.
    """

    train: dict[int, float] = field(default_factory=dict)
    held_out: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    host_peak: int | None = None
    times: StepTimes = field(default_factory=StepTimes)
    device_peak: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Where the files are."""

    markdown: Path
    json: Path
    picture: Path


def write_report(
    home: Home, run: RunFolder, report: Callable[[str, float], None] = lambda name, fraction: None
) -> Report:
    """Write a run's report anew.

    Args:
        report: told which file of records is read for its checksum, and how much of it was, 0 to 1.

    Raises:
        WorkbenchError: the recipe cannot be read, the run has not begun, or the disk refuses.
    """
    recipe = run.recipe_as_run()
    if not run.journal.is_file():
        raise WorkbenchError(
            f"Run {run.id} has no journal, so there is nothing to report.", "Start it first.", kind="no_journal"
        )
    facts = provenance_of(run, recipe, find_local(home, recipe.model), report)
    curves = read_curves(run)
    newest = newest_evaluation(run)
    evaluation = _fit_to_publish(newest) if newest else None
    told = report_facts(facts, curves, evaluation)
    lines = [Line("training", list(curves.train.items())), Line("held out", list(curves.held_out.items()), marked=True)]
    files = Report(run.path / "report.md", run.path / "report.json", run.path / PICTURE)
    try:
        write_text(files.picture, curve_picture(run.id, lines), errors=_UNKNOWN)
        write_text(files.json, json.dumps(told, ensure_ascii=False, indent=1) + "\n", errors=_UNKNOWN)
        write_text(files.markdown, report_markdown(told, evaluation, PICTURE), errors=_UNKNOWN)
    except OSError as error:
        raise WorkbenchError(
            f"The report cannot be written to {run.path}: {error.strerror or error}.",
            "Free some disk space, or check the folder's permissions.",
            kind="disk",
        ) from None
    return files


def read_curves(run: RunFolder) -> Curves:
    """The curve of a run, from its journal; what a resume cut away is not in it."""
    points = _ReportedCurve()
    replay = Replay.of(run.journal, points)
    return Curves(
        train=points.by_step(points.losses),
        seconds=points.by_step(points.durations),
        held_out=dict(sorted(held_out_losses(replay).items())),
        times=points.times,
        host_peak=points.host_peak,
        device_peak={name: replay.facts.get(name) for name in ("peak_flops", "no_peak")}
        if {"peak_flops", "no_peak"} & replay.facts.keys()
        else {},
    )


class _ReportedCurve(ExactCurve):
    """The points, and what all steps took, those that were trained in vain too."""

    def __init__(self) -> None:
        super().__init__()
        self.times = StepTimes()
        self.host_peak: int | None = None

    def add(self, step: Step) -> None:
        super().add(step)
        self.times.add(step)
        if step.host and (peak := step.host.get("peak")):
            self.host_peak = max(self.host_peak or 0, peak)

    @property
    def durations(self) -> list[float]:
        """Seconds of each point."""
        return [after - before for before, after in pairwise([0.0, *self.seconds])]

    def by_step(self, values: Sequence[float]) -> dict[int, float]:
        """The finite ones of some values, by step."""
        return {int(step): value for step, value in zip(self.steps, values, strict=True) if isfinite(value)}


def report_facts(facts: Provenance, curves: Curves, evaluation: Evaluation | None) -> dict[str, Any]:
    """All that the report tells, as plain data."""
    summary = facts.summary
    seconds = sum(curves.seconds.values())
    utilisation = curves.times.as_json()
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
        "utilisation": {**utilisation, **curves.device_peak} if utilisation else None,
        "memory": _memory(facts, curves),
        "curve": {
            "training": [list(point) for point in curves.train.items()],
            "held_out": [list(point) for point in curves.held_out.items()],
        },
        "evaluation": evaluation.model_dump(mode="json", exclude={"per_record"}) if evaluation else None,
    }


def _memory(facts: Provenance, curves: Curves) -> dict[str, Any]:
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


def _fit_to_publish(evaluation: Evaluation) -> Evaluation:
    """The evaluation without this machine's folders."""
    judged = [one.model_copy(update={"folder": one.folder and public_name(one.folder)}) for one in evaluation.judged]
    sources = " + ".join(map(public_name, evaluation.source.split(" + ")))
    names = {"source": sources, "model": public_name(evaluation.model)}
    return evaluation.model_copy(update={**names, "judged": judged})
