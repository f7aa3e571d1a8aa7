"""Estimates how long a run will take: from past runs of the same base here, or from FLOPs and the device's peak."""

from dataclasses import dataclass

from workbench.data.facts import DataFacts
from workbench.errors import WorkbenchError
from workbench.estimate.flops import training_flops
from workbench.estimate.gpu_peak import gpu_peak
from workbench.models.skeleton import Skeleton
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.section import OFFLOAD
from workbench.runs.folder import RunFolder, all_runs, summarise
from workbench.runs.summary import RunSummary
from workbench.storage.paths import Home

ASSUMED_MFU = 0.4
"""Share of the device's peak FLOP/s that a run is assumed to reach where no past run says better."""

# Runs that are looked at for the speed of a base, newest first.
_RUNS_READ = 40


@dataclass(frozen=True)
class Workload:
    """What a run will process.

    Attributes:
        steps: optimizer steps. tokens: tokens over all steps, without padding.
        is_sampled: derived from a sample of the records.
    """

    steps: int
    tokens: int
    is_sampled: bool = False


@dataclass(frozen=True)
class Speed:
    """A training speed, and where it is from: the name of a past run; empty if it was computed from FLOPs."""

    tokens_per_second: float
    run: str = ""


def workload(facts: DataFacts, recipe: Recipe, processes: int = 1) -> Workload | None:
    """Count the steps and tokens of a run; None if the data have no tokens.

    Args:
        processes: each trains on its own part of the data, so there are fewer steps per epoch.
    """
    training, packing = recipe.training, recipe.data.packing
    if not facts.records or not facts.total:
        return None
    per_record = facts.total / facts.records
    steps = facts.steps(training, packing)
    if training.max_steps <= 0:
        steps = max(1, -(-steps // processes))
    epochs = training.num_train_epochs
    if training.max_steps > 0:
        epochs = training.max_steps * processes / facts.steps_per_epoch(training, packing)
    return Workload(steps, round(per_record * facts.train_records * epochs), is_sampled=not facts.exact)


def past_speed(home: Home, recipe: Recipe) -> Speed | None:
    """The speed of the newest run of the same base and quantization in this home; None without one.

    Reads the newest runs; call it in a thread.
    """
    for run in all_runs(home)[:_RUNS_READ]:
        summary = summarise(run, quick=True)
        if summary.model == recipe.model.source and (speed := _speed_of(run, summary, recipe)):
            return speed
    return None


def _speed_of(run: RunFolder, summary: RunSummary, recipe: Recipe) -> Speed | None:
    if not summary.tokens_per_second or not summary.step:
        return None
    try:
        past = run.recipe()
    except WorkbenchError:
        return None
    same = past.quantization.method == recipe.quantization.method
    return Speed(summary.tokens_per_second, run.name) if same else None


def computed_speed(
    skeleton: Skeleton, recipe: Recipe, gpu_name: str, facts: DataFacts, processes: int = 1
) -> Speed | None:
    """The speed at :data:`ASSUMED_MFU` of a GPU's peak; None if the peak or the FLOPs are unknown.

    Raises:
        WorkbenchError: PEFT would refuse the adapter for this model.
    """
    peak = gpu_peak(gpu_name, "bfloat16").flops
    if peak is None or not facts.records or not facts.total:
        return None
    checkpointing = recipe.training.gradient_checkpointing in (True, OFFLOAD)
    flops = training_flops(skeleton, recipe.adapter, checkpointing)
    length = max(1, round(facts.total / facts.records))
    per_record = flops.hardware([length], round(facts.trained / facts.records))
    return Speed(processes * length * ASSUMED_MFU * peak / per_record) if per_record else None
