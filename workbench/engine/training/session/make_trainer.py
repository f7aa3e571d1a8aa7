"""Makes the trainer of a run from its recipe. Imports torch and TRL."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from workbench.adapters.registry import method_of
from workbench.data.tokens.encode import EncodedData
from workbench.engine.kernels.rank_allocation import RankAllocation
from workbench.engine.metrics.peak_memory import left_out_text, out_of_memory_error, refusal_of
from workbench.engine.metrics.step_clock import AnyClock
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.engine.model.sharded import is_spread
from workbench.engine.model.translate import sft_config
from workbench.engine.objectives.order import in_trained_order
from workbench.engine.objectives.reference import Reference
from workbench.engine.training.session.context import Context
from workbench.engine.training.starting_adapter import keep_starting_adapter, load_starting_weights
from workbench.engine.training.starts.attach import attach_adapter
from workbench.engine.training.trainers.optimizer import optimizer_here
from workbench.engine.training.trainers.parameter_groups import OptimizerKnobs, check_trains_embeddings, freeze_a
from workbench.engine.training.trainers.records import TRAINERS
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.errors import WorkbenchError
from workbench.recipe.optimizers import OPTIMIZERS
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

if TYPE_CHECKING:
    from transformers import TrainerCallback


def make_trainer(
    context: Context, base: LoadedBase, data: EncodedData, clock: AnyClock, callbacks: "Sequence[TrainerCallback]"
) -> WorkbenchTrainer:
    """Attach a new adapter to the base, and make the trainer of the recipe's objective for it.

    Raises:
        WorkbenchError: PEFT rejects the adapter, or the objective cannot be trained on this base.
    """
    recipe, warn = context.recipe, context.warnings.warn
    optimizer, notice = optimizer_here(recipe.training.optim)
    if notice:
        warn(notice, kind="optimizer")
    if recipe.trained_adapter != recipe.adapter:
        adapter = recipe.adapter
        ignored = f"lora_dropout {adapter.lora_dropout:g}" if adapter.has_dropout else "options"
        warn(
            f"{recipe.objective.kind} trains without dropout, as TRL does: adapter.{ignored} is not used.",
            kind="dropout",
        )
    if unused := recipe.objective.unused_keys:
        warn(
            f"{recipe.objective.kind} does not use {', '.join(f'objective.{name}' for name in unused)}.",
            kind="objective",
        )
    # The adapter's initial values are drawn when it is attached, before the trainer sets the seed.
    torch.manual_seed(recipe.training.seed)
    start = recipe.adapter.continue_from
    head = _head(recipe, data)
    for notice in keep_starting_adapter(context.home, context.run, recipe, base, context.ranks, head):
        warn(notice, kind="starting_adapter")
    try:
        model = attach_adapter(context, base, data, head)
    except WorkbenchError as error:
        raise refusal_of(recipe, base, error) from error
    check_trains_embeddings(model, recipe.training.embedding_learning_rate)
    weights = load_starting_weights(base, context.run, start, context.ranks) if start else {}
    if left_out := left_out_text(recipe, base):
        warn(left_out, kind="frozen_parts")
    overrides: dict[str, object] = {"training.optim": optimizer}
    if OPTIMIZERS[optimizer].averages and recipe.training.lr_scheduler_type not in ("constant", "constant_with_warmup"):
        warn(
            f"{optimizer} needs no schedule, and training.lr_scheduler_type {recipe.training.lr_scheduler_type} lowers "
            "its learning rate as well: constant_with_warmup is usual.",
            kind="optimizer",
        )
    if not context.ranks.is_first:
        overrides["training.report_to"] = []
    reference = Reference(model, weights if recipe.objective.spec.has_reference else {})
    trainer = _trainer_class(recipe, reference, head)(
        model=model,
        args=sft_config(edit(recipe, overrides), base.precision, context.run.checkpoints),
        train_dataset=in_trained_order(data.train, recipe),
        processing_class=base.tokenizer,
        callbacks=list(callbacks),
        clock=clock,
        ranks=context.ranks,
        template=data.template,
        retry_while_full=context.retry_while_full,
        knobs=OptimizerKnobs.of(recipe.training),
        saves_only_model=recipe.training.save_only_model,
        groups_by_length=recipe.training.group_by_length,
        skip_non_finite=recipe.training.non_finite == "skip",
        warnings=context.warnings,
        out_of_memory_error=lambda: out_of_memory_error(context.home, recipe, base, data.facts),
    )
    if method_of(recipe.adapter.method).allocates_ranks:
        _allocate_ranks(trainer, recipe)
    # TRL casts the adapter of a quantized base to bfloat16, even if the base computes in another dtype.
    base.cast_adapter()
    if recipe.training.trains_b_only:
        freeze_a(model)
    return trainer


def _allocate_ranks(trainer: WorkbenchTrainer, recipe: Recipe) -> None:
    """Let the ranks of an AdaLoRA adapter change during the run."""
    if is_spread():
        raise WorkbenchError(
            "AdaLoRA on a base that is sharded across GPUs is not supported: no process has the gradient of a whole "
            "layer, which its importance is computed from.",
            "Train on one GPU, or on several that each hold the whole base.",
            kind="adapter_method",
        )

    def check(steps: int) -> None:
        if refusal := method_of(recipe.adapter.method).steps_refusal(recipe.adapter, steps):
            cure = refusal.cure[:1].upper() + refusal.cure[1:]
            raise WorkbenchError(f"{refusal.path}: {refusal.reason}.", f"{cure}.", kind="adapter_settings")

    trainer.allocate_ranks(RankAllocation(trainer.model, check))


def _head(recipe: Recipe, data: EncodedData) -> SequenceHead | None:
    """What the adapter's own head will predict; None if it predicts tokens."""
    match recipe.objective.spec.head:
        case "labels":
            return SequenceHead("classification", data.labels, data.reads_turns)
        case "score":
            return SequenceHead("reward", ("score",))
        case _:
            return None


def _trainer_class(recipe: Recipe, reference: Reference, head: SequenceHead | None) -> Callable[..., WorkbenchTrainer]:
    """The trainer of a recipe's objective."""
    objective = recipe.objective
    if objective.spec.records == "texts":
        return WorkbenchTrainer
    if is_spread():
        raise WorkbenchError(
            f"{objective.kind} on a base that is sharded across GPUs is not supported: no process could switch the "
            "adapter off, or see a text as a whole.",
            "Train on one GPU, or on several that each hold the whole base.",
            kind="objective",
        )
    own = {"max_length": recipe.data.max_length} if objective.spec.records == "unpaired" else {}
    return partial(TRAINERS[objective.spec.records], objective=objective, reference=reference, head=head, **own)
