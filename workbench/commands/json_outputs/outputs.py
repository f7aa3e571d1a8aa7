"""The table of outputs: what each command prints with ``--json``, in which case, and how many lines of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.commands.json_outputs.data_types import CleanedData, DatasetStats
from workbench.commands.json_outputs.engine_types import (
    CacheLine,
    ClearedLine,
    EngineLine,
    ExportPlan,
    ImportedRecipe,
    PlannedRun,
    QueueData,
    ServerLine,
)
from workbench.commands.json_outputs.model_types import (
    CatalogModelLine,
    Estimate,
    HubModelLine,
    LocalModelLine,
    ModelFit,
    OwnModelLine,
    Tree,
)
from workbench.commands.json_outputs.run_types import (
    CalibrationData,
    ClusterFilesLine,
    ComparedRuns,
    ControlLine,
    DemoResult,
    JudgedPreferences,
    RunLine,
    StartedRunLine,
    TrashedLine,
)
from workbench.evaluation.report_data import ReportData
from workbench.evaluation.result import Evaluation
from workbench.evaluation.task_result import TaskEvaluation
from workbench.export.request import Exported
from workbench.planning.doctor.check import Check
from workbench.recipe.presets import PresetDescription
from workbench.recipe.schema import Recipe
from workbench.serving.finished import Finished

EVENTS = "events"
"""Stands for the events of a run's journal."""


@dataclass(frozen=True)
class JsonOutput:
    """What a command prints.

    Attributes:
        command: its words, without the program's name.
        kinds: types of a line; :data:`EVENTS` for journal events.
        lines: how many lines, and of what.
        case: the option or argument that this is for; empty for all other calls.
        without: fields of the type that are not printed. more: fields besides, with their type and meaning.
    """

    command: str
    kinds: Sequence[Any]
    lines: str
    case: str = ""
    without: frozenset[str] = frozenset()
    more: Mapping[str, tuple[str, str]] = field(default_factory=dict)


_FILE = {"file": ("string", "the file with this result")}
_QUEUE = "one line, after the change"

OUTPUTS: tuple[JsonOutput, ...] = (
    JsonOutput("demo", (EVENTS, DemoResult), "a line per event, then one with the result"),
    JsonOutput(
        "models",
        (LocalModelLine, OwnModelLine, CatalogModelLine, HubModelLine),
        "a line per model, of the kind that `where` names",
    ),
    JsonOutput("models", (ModelFit,), "a line per model of the catalog", case="--fits"),
    JsonOutput("inspect", (Tree,), "one line"),
    JsonOutput("estimate", (Estimate,), "one line"),
    JsonOutput("data", (DatasetStats,), "one line"),
    JsonOutput("data", (CleanedData,), "one line", case="--write"),
    JsonOutput("presets", (PresetDescription,), "a line per preset"),
    JsonOutput("presets", (Recipe,), "one line: the preset's recipe, without values at their default", case="NAME"),
    JsonOutput("train", (EVENTS,), "a line per event, as it is written"),
    JsonOutput("train", (StartedRunLine,), "one line", case="--detach"),
    JsonOutput("train", (ClusterFilesLine,), "one line", case="--write"),
    JsonOutput("attach", (EVENTS,), "a line per event, from the first on"),
    JsonOutput("control", (ControlLine,), "one line"),
    JsonOutput("queue", (QueueData,), "one line"),
    JsonOutput("queue add", (QueueData,), _QUEUE),
    JsonOutput("queue sweep", (QueueData,), _QUEUE),
    JsonOutput("queue sweep", (list[PlannedRun],), "one line: a list", case="--plan"),
    *(
        JsonOutput(f"queue {name}", (QueueData,), _QUEUE)
        for name in ("replace", "remove", "move", "hold", "go", "clear")
    ),
    JsonOutput("serve", (ServerLine, Finished), "a line once it listens, then one per request"),
    JsonOutput("evaluate", (Evaluation,), "one line", without=frozenset({"per_record"}), more=_FILE),
    JsonOutput("evaluate", (TaskEvaluation,), "one line", case="--tasks", more=_FILE),
    JsonOutput("judge", (JudgedPreferences,), "one line"),
    JsonOutput("report", (ReportData,), "one line: the content of report.json"),
    JsonOutput("runs", (RunLine,), "a line per run"),
    JsonOutput("runs compare", (ComparedRuns,), "one line"),
    JsonOutput("runs trash", (TrashedLine,), "a line per run"),
    JsonOutput("export", (Exported,), "one line"),
    JsonOutput("export", (ExportPlan,), "one line", case="--plan"),
    JsonOutput("import", (ImportedRecipe,), "one line"),
    JsonOutput("calibration", (CalibrationData,), "one line"),
    JsonOutput("engine status", (EngineLine,), "one line"),
    JsonOutput("cache", (CacheLine,), "a line per entry"),
    JsonOutput("cache clear", (ClearedLine,), "a line per kind"),
    JsonOutput("doctor", (Check,), "a line per check"),
)


def output_of(command: str, options: Sequence[str]) -> JsonOutput:
    """What a call prints.

    Args:
        options: the words of the call; an argument counts as ``NAME``.
    """
    found = [output for output in OUTPUTS if output.command == command]
    return next((output for output in found if output.case and output.case in options), found[0])
