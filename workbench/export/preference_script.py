"""Writes the script of a run that trained on pairs, unpaired responses or labels: TRL's own trainer on its tokens."""

from workbench.adapters.starts import keeps_start
from workbench.export.preference_script_text import (
    ATTACH,
    BATCHES,
    HEAD,
    LABELED,
    PAIRS,
    PEFT_CONFIG,
    SCORED,
    SIDES,
    TRAIN,
    UNPAIRED,
)
from workbench.export.script_text import START
from workbench.export.work import Job
from workbench.objectives.objective import Trl
from workbench.recipe.schema import Recipe


def smoothing_argument(recipe: Recipe) -> str:
    """The argument of a loss that smooths its targets; empty if the recipe's does not."""
    smoothing = recipe.objective.label_smoothing
    return f", label_smoothing={smoothing}" if smoothing else ""


def trl_of(recipe: Recipe) -> Trl | None:
    """TRL's own trainer for a recipe's objective; None for supervised training."""
    return recipe.objective.spec.trl


def imports_of(trl: Trl) -> str:
    """The lines that import TRL's trainer, in place of the supervised one."""
    names = ", ".join(sorted((trl.trainer, trl.config)))
    return f"from {trl.module} import {names}\n"


def training_arguments(arguments: dict[str, object], recipe: Recipe) -> dict[str, object]:
    """The arguments of a supervised run without those that such a trainer does not have."""
    left_out = ["packing", "router_aux_loss_coef"]
    if recipe.objective.spec.records == "labeled":
        left_out.append("max_length")
    kept = {name: value for name, value in arguments.items() if name not in left_out}
    if recipe.objective.spec.records == "unpaired":
        kept["train_sampling_strategy"] = "sequential"
    return kept


def batches_and_training(job: Job, trl: Trl) -> str:
    """The cells after the records are read: how batches are made, and the training."""
    spec = job.recipe.objective.spec
    if spec.has_head:
        collate = LABELED if spec.head == "labels" else SCORED
    else:
        collate = UNPAIRED if spec.records == "unpaired" else PAIRS if spec.has_reference else SIDES
    if keeps_start(job.recipe.adapter):
        # TRL keeps a copy of an adapter that it is given: the reference.
        attach, peft_config = ATTACH + START, ""
    else:
        attach, peft_config = ("", PEFT_CONFIG) if spec.has_reference else (ATTACH, "")
    return (
        (HEAD if spec.has_head else "")
        + BATCHES
        + collate.format(trainer=trl.trainer, smoothing=smoothing_argument(job.recipe))
        + TRAIN.format(config=trl.config, attach=attach, peft_config=peft_config)
    )
