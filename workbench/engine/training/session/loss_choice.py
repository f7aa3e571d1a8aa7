"""Decides how a run computes its loss: padded or not, and with or without the routers' balancing loss."""

from dataclasses import replace

from workbench.data.tokens.encode import EncodedData
from workbench.engine.kernels.loss_path import PADDED, LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts
from workbench.engine.model.loss_check.check import LossCheck, check_loss
from workbench.engine.model.loss_check.router_loss import why_no_router_loss
from workbench.engine.model.sharded import is_spread
from workbench.engine.training.session.context import Context
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.runs.history import History


def choose_loss_path(context: Context, base: LoadedBase, data: EncodedData, history: History) -> LossCheck:
    """Find out how to compute the loss; the first process decides for all. A resumed run continues as it began."""
    if is_spread():
        return LossCheck(PADDED, "its base is sharded across GPUs, so no process could compare its loss")
    if context.recipe.training.neftune_noise_alpha:
        return LossCheck(PADDED, "NEFTune's noise depends on the length of a batch's rows")
    began = LossPath.recorded(history.conditions.get("batches"))
    here = {"device": device_facts().name, "compute dtype": base.precision.compute}
    if began is not None and all(history.conditions.get(name) == value for name, value in here.items()):
        return LossCheck(began, history.padded_because)
    ranks = context.ranks
    found = ranks.broadcast(check_loss(base, data.train) if ranks.is_first else None)
    assert found is not None
    path = replace(found.path, one_record=False)
    if found.path.one_record and context.recipe.objective.spec.records != "texts":
        return LossCheck(path, f"{found.problem}; the texts of a record are one batch", found.detail)
    if found.path.one_record and ranks.count > 1:
        # Processes would differ in how often they exchange gradients.
        return LossCheck(path, f"{found.problem}; with a micro-batch of 1 there is no padding", found.detail)
    return found


def use_loss_path(context: Context, base: LoadedBase, trainer: WorkbenchTrainer, check: LossCheck) -> None:
    """Make the model and the trainer compute the loss as checked, with a warning if not the fastest way."""
    path, problem = check.path, check.problem
    objective = context.recipe.objective
    base.enable_loss_path(path, objective.label_smoothing if objective.spec.smooths_tokens else 0.0)
    trainer.take(path)
    if problem and (path != PADDED or ": loss " in problem):
        context.warnings.warn(f"{problem[0].upper()}{problem[1:]}. The batches of this run: {path}.", kind="loss_path")


def add_router_loss(
    context: Context, base: LoadedBase, data: EncodedData, trainer: WorkbenchTrainer, path: LossPath
) -> None:
    """Add the router's balancing loss if the recipe asks for it and the model computes one."""
    weight = context.recipe.training.router_aux_loss
    if not weight:
        return
    missing = "" if is_spread() else why_no_router_loss(base, path, data.train)
    if problem := next(filter(None, context.ranks.gather(missing)), ""):
        context.warnings.warn(f"training.router_aux_loss has no effect: {problem}.", kind="router_aux_loss")
    else:
        trainer.router_aux_loss = weight
