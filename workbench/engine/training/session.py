"""Runs the trainer for one run, from its start or from a checkpoint, until it ends or releases its memory."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import torch

from workbench.data.tokens.encode import EncodedData
from workbench.engine.generation.evaluation import HeldOutLoss
from workbench.engine.generation.preference_evaluation import HeldOutPreference, held_out_preference
from workbench.engine.generation.samples import sample_replies
from workbench.engine.generation.shared_evaluation import shared_held_out_loss
from workbench.engine.kernels.loss_path import PADDED, LossPath
from workbench.engine.metrics.peak_memory import left_out_text, out_of_memory_error, predicted_peak
from workbench.engine.metrics.step_clock import clock_for
from workbench.engine.metrics.trackers import guard_trackers
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.hardware import device_facts
from workbench.engine.model.loss_check import LossCheck, check_loss
from workbench.engine.model.router_loss import why_no_router_loss
from workbench.engine.model.saving import load_adapter, save_adapter
from workbench.engine.model.sharded import is_sharded, is_spread
from workbench.engine.model.translate import sft_config
from workbench.engine.steering.controls import Controls, PausedTask
from workbench.engine.steering.ranks import Ranks
from workbench.engine.storage.disk_full_retry import RetryingJournal
from workbench.engine.storage.room import check_room_for_checkpoints
from workbench.engine.training.best import BestSoFar
from workbench.engine.training.journal_callback import JournalCallback
from workbench.engine.training.optimizer import optimizer_here
from workbench.engine.training.preference_trainer import PreferenceTrainer
from workbench.engine.training.resume_check import ResumeCheck, conditions_of, differences
from workbench.engine.training.step_controls import ExitReason, LoopExit, RunHooks, StepControls
from workbench.engine.training.trainer import WorkbenchTrainer
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.resolved import ResolvedRecipe
from workbench.recipe.text import edit
from workbench.runs.checkpoints import Checkpoint
from workbench.runs.events import Eval, Phase, Rewards, RunWarning, Sample
from workbench.runs.folder import RunFolder
from workbench.runs.history import History
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from datasets import Dataset

    from workbench.engine.training.choice import Decision

# More held-out records add little information, and cost time in every evaluation.
EVALUATED_RECORDS = 256

T = TypeVar("T")


@dataclass
class Context:
    """The objects that all parts of a run share.

    Attributes:
        report: called with progress for the engine's status and the journal.
        show: called with progress for the engine's status only.
    """

    home: Home
    run: RunFolder
    recipe: ResolvedRecipe
    journal: RetryingJournal
    controls: Controls
    report: Callable[[Progress], None]
    show: Callable[[Progress], None]
    ranks: Ranks


class Session:
    """Connects one run's trainer with its journal, controls, evaluations and trackers.

    It is created after the base is loaded and the records are tokenized.

    Attributes:
        step_controls: applies the user's requests between steps.
        best: the best evaluation so far.

    Raises:
        WorkbenchError: PEFT rejects the adapter, or the disk has no space for what the run will write.
    """

    def __init__(
        self,
        context: Context,
        base: LoadedBase,
        data: EncodedData,
        history: History,
        choice: "Decision",
    ) -> None:
        self._context = context
        self._choice = choice
        self._compile_pending = context.recipe.training.torch_compile
        self._base = base
        self._data = data
        training = context.recipe.training
        self._evaluated = dict(history.evaluations)
        self._skipped: set[str] = set()
        self.best = BestSoFar(training.early_stopping_patience, training.early_stopping_min_delta)
        for step, loss in sorted(history.evaluations.items()):
            if step:  # the evaluation before the first step is of the base, not of the adapter
                self.best.add(step, loss)
        self._clock = clock_for(context.recipe, base)
        self._journal_callback = JournalCallback(
            context.journal, context.show, lambda: self.trainer.tokens_seen, self._clock, self._compare_loss
        )
        self.step_controls = StepControls(
            context.journal,
            context.controls,
            RunHooks(
                before_first_step=self._compile_layers,
                evaluate=self.evaluate,
                sample=self._sample,
                exclude_seconds=self._journal_callback.exclude_seconds,
                report=context.report,
                run_task=self._run_task,
                training_continues=self._journal_callback.training_continues,
            ),
            training.eval_steps,
        )
        self.trainer = self._make_trainer()
        self._loss_check = self._check_loss(history)
        self._take_loss_path()
        self._add_router_loss()
        self._kernels = self._apply_fused_kernels()
        self._trackers = guard_trackers(self.trainer, context.run, self._warn)
        self.step_controls.trainer = self.trainer
        if history.max_steps:
            self.trainer.args.max_steps = history.max_steps
        check_room_for_checkpoints(context.run.path, training, base.active)
        self._conditions = conditions_of(
            base,
            data.train,
            processes=context.ranks.count,
            batches=str(self._loss_check.path),
            kernels=self._kernels,
        )
        self._resume_check = ResumeCheck(
            history.losses, differences(history.conditions, self._conditions), self._warn_of_resume
        )
        self._record_preparation()

    def _make_trainer(self) -> WorkbenchTrainer:
        recipe, base = self._context.recipe, self._base
        optimizer, notice = optimizer_here(recipe.training.optim)
        if notice:
            self._warn(notice, kind="optimizer")
        if recipe.trained_adapter != recipe.adapter:
            self._warn(
                f"{recipe.objective.kind} trains without dropout, as TRL does: adapter.lora_dropout "
                f"{recipe.adapter.lora_dropout:g} is not used.",
                kind="dropout",
            )
        # The adapter's initial values are drawn when it is attached, before the trainer sets the seed.
        torch.manual_seed(recipe.training.seed)
        model = base.attach_new(recipe.trained_adapter)
        if left_out := left_out_text(recipe, base):
            self._warn(left_out, kind="frozen_parts")
        overrides: dict[str, object] = {"training.optim": optimizer}
        if not self._context.ranks.is_first:
            overrides["training.report_to"] = []
        trainer = self._trainer_class()(
            model=model,
            args=sft_config(edit(recipe, overrides), base.precision, self._context.run.checkpoints),
            train_dataset=self._data.train,
            processing_class=base.tokenizer,
            callbacks=[self.step_controls, self._journal_callback],
            clock=self._clock,
            ranks=self._context.ranks,
            template=self._data.template,
            retry_while_full=self._retry_while_full,
            skip_non_finite=recipe.training.non_finite == "skip",
            warn=self._warn,
            out_of_memory_error=lambda: out_of_memory_error(self._context.home, recipe, base, self._data.facts),
        )
        # TRL casts the adapter of a quantized base to bfloat16, even if the base computes in another dtype.
        base.cast_adapter()
        return trainer

    def _trainer_class(self) -> Callable[..., WorkbenchTrainer]:
        """The trainer of the recipe's objective."""
        objective = self._context.recipe.objective
        if not objective.is_preference:
            return WorkbenchTrainer
        if is_spread():
            raise WorkbenchError(
                f"{objective.kind} on a base that is sharded across GPUs is not supported: the reference is the base "
                "with its adapter switched off.",
                "Train on one GPU, or on several that each hold the whole base.",
                kind="objective",
            )
        return partial(PreferenceTrainer, objective=objective)

    def _check_loss(self, history: History) -> LossCheck:
        """Find out how to compute the loss; the first process decides for all. A resumed run continues as it began."""
        if is_spread():
            return LossCheck(PADDED, "its base is sharded across GPUs, so no process could compare its loss")
        began = LossPath.recorded(history.conditions.get("batches"))
        here = {"device": device_facts().name, "compute dtype": self._base.precision.compute}
        if began is not None and all(history.conditions.get(name) == value for name, value in here.items()):
            return LossCheck(began, history.padded_because)
        ranks = self._context.ranks
        found = ranks.broadcast(check_loss(self._base, self._data.train) if ranks.is_first else None)
        assert found is not None
        path = replace(found.path, one_record=False)
        if found.path.one_record and self._context.recipe.objective.is_preference:
            return LossCheck(path, f"{found.problem}; both sides of a pair are one batch", found.detail)
        if found.path.one_record and ranks.count > 1:
            # Processes would differ in how often they exchange gradients.
            return LossCheck(path, f"{found.problem}; with a micro-batch of 1 there is no padding", found.detail)
        return found

    def _take_loss_path(self) -> None:
        path, problem = self._loss_check.path, self._loss_check.problem
        self._base.enable_loss_path(path)
        self.trainer.take(path)
        if problem and (path != PADDED or ": loss " in problem):
            self._warn(f"{problem[0].upper()}{problem[1:]}. The batches of this run: {path}.", kind="loss_path")

    def _add_router_loss(self) -> None:
        """Add the router's balancing loss if the recipe asks for it and the model computes one."""
        weight = self._context.recipe.training.router_aux_loss
        if not weight:
            return
        missing = "" if is_spread() else why_no_router_loss(self._base, self._loss_check.path, self._data.train)
        if problem := next(filter(None, self._context.ranks.gather(missing)), ""):
            self._warn(f"training.router_aux_loss has no effect: {problem}.", kind="router_aux_loss")
        else:
            self.trainer.router_aux_loss = weight

    def _apply_fused_kernels(self) -> str:
        """Apply the fused kernels that the recipe asks for; returns their description, empty for none."""
        kernels = self._context.recipe.training.kernels
        if kernels == "none":
            return ""
        if is_spread():
            self._warn_skipped("Fused kernels are")
            return ""
        fused = self._base.apply_fused_kernels(kernels)
        for notice in fused.notices:
            self._warn(notice, kind="kernels")
        return fused.description

    def _retry_while_full(self, work: Callable[[], T]) -> T:
        return self._context.journal.retry_while_full_on_all(self._context.ranks, work)

    def _record_preparation(self) -> None:
        """Write into the journal how the run will train."""
        if not self._context.ranks.is_first:
            return
        base, recipe = self._base, self._context.recipe
        self._context.journal.write(
            Phase(
                phase="preparing",
                detail=f"{base.precision.compute} ({base.precision.reason})",
                base=base.stored_as,
                compute_dtype=base.precision.compute,
                adapter_dtype=base.precision.adapter,
                processes=self._context.ranks.count,
                padding_free=self._loss_check.path.padding_free,
                padded_because=self._loss_check.problem or None,
                loss_check=self._loss_check.detail or None,
                kernels=self._kernels or None,
                trainable_parameters=sum(p.numel() for p in base.active.parameters() if p.requires_grad),
                chosen=dict(self._choice.chosen),
                reasons=list(self._choice.reasons),
                predicted=predicted_peak(
                    self._context.home, recipe, base, self._data.facts, self.trainer.fullest_micro_batch()
                ),
                conditions=self._conditions,
                peak_flops=self._clock.peak.flops,
                no_peak=self._clock.peak.why,
            )
        )

    # -- training -------------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Optimizer steps done so far."""
        return int(self.trainer.state.global_step)

    def train(self, checkpoint: Checkpoint | None) -> ExitReason:
        """Train to the end, or until a request stops the run or releases its memory.

        Returns the reason for an early exit; empty at the end.
        """
        while True:
            reason = self._run_trainer(checkpoint)
            if reason != "max_steps":
                return reason
            if self.step_controls.max_steps <= self.step:
                return ""
            # The schedule depends on the number of steps: the trainer creates a new one and continues from here.
            checkpoint = self.trainer.checkpoint()
            self.trainer.args.max_steps = self.step_controls.max_steps

    def _compile_layers(self) -> None:
        """Compile the layers if the recipe asks for it; later calls do nothing."""
        if not self._compile_pending:
            return
        self._compile_pending = False
        if is_spread():
            self._warn_skipped("Compiled layers are")
            return
        from workbench.engine.training.layer_compilation import compile_layers

        context = self._context
        context.report(Progress(phase="preparing", detail="compiling the layers"))
        seconds, problem = compile_layers(self.trainer, context.ranks, context.home.cache / "compiled" / "code")
        if problem:
            self._warn(f"Not compiled: {problem}.", kind="torch_compile")
        reasons = [*self._choice.reasons, *([] if problem else [f"Layers compiled in {seconds:.0f} s."])]
        context.journal.write(
            Phase(
                phase="preparing",
                compiled=not problem,
                compile_seconds=seconds,
                chosen=dict(self._choice.chosen),
                reasons=reasons,
            )
        )

    def _run_trainer(self, checkpoint: Checkpoint | None) -> ExitReason:
        """Run the trainer's loop once; returns the reason for an early exit, empty at the end."""
        self.step_controls.start_from(checkpoint)
        try:
            self.trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        except LoopExit:
            self.trainer.is_in_train = False
            return self.step_controls.exit_reason
        return ""

    def save(self, folder: Path) -> None:
        """Save the adapter with its current weights; only the first process writes it."""
        weights = self.trainer.full_state_dict() if is_sharded() else None
        if not self._context.ranks.is_first:
            return
        self._context.journal.retry_while_full(lambda: save_adapter(self._base, self._data.template, folder, weights))

    # -- between steps --------------------------------------------------------------------------------------------

    def evaluate(self, step: int) -> bool:
        """Compute and record the loss on held-out records after ``step`` steps; at step 0 it is the base's loss.

        Returns whether the run should stop early, according to the recipe.
        """
        records = self._data.eval
        controls = self._context.controls
        if is_sharded():
            self._warn_skipped("The held-out loss is")
            return False
        if step in self._evaluated or not len(records) or controls.is_stopped():
            return self.best.is_over
        held_out = records.select(range(min(len(records), EVALUATED_RECORDS)))
        batch = max(self._context.recipe.training.per_device_train_batch_size // self.trainer.parts, 1)

        def report(progress: Progress) -> None:
            phase = progress.phase if step else "base evaluation"
            self._context.report(progress.model_copy(update={"phase": phase}))

        evaluated = self._evaluate(step, held_out, batch, report)
        if evaluated is None:
            return False
        loss, event = evaluated
        self._evaluated[step] = loss
        is_best = step > 0 and self.best.add(step, loss)
        if is_best and self._context.recipe.training.keep == "best":
            self.save(self._context.run.best)
        self._context.journal.write(msgspec.structs.replace(event, best=is_best))
        self._send_to_trackers(event)
        return self.best.is_over

    def _evaluate(
        self, step: int, records: "Dataset", batch_size: int, report: Callable[[Progress], None]
    ) -> tuple[float, Eval] | None:
        """The held-out loss and its event, with what else the objective measures; None if the run should stop."""
        base, controls, ranks = self._base, self._context.controls, self._context.ranks
        objective, path = self._context.recipe.objective, self._loss_check.path
        if objective.is_preference:
            preference = held_out_preference(base, records, objective, batch_size, report, controls, ranks, path=path)
            return None if preference is None else (preference.loss, _preference_event(step, preference))
        result = shared_held_out_loss(base, records, batch_size, report, controls, ranks, path=path)
        return None if result is None else (result.loss, _loss_event(step, result, len(records)))

    def _send_to_trackers(self, event: Eval) -> None:
        figures: dict[str, object] = {
            "eval_loss": event.loss,
            "eval_perplexity": event.perplexity,
            "eval_token_accuracy": event.token_accuracy,
        }
        figures |= {f"eval_rewards/{name}": value for name, value in (event.rewards or {}).items()}
        logs = {name: value for name, value in figures.items() if value is not None}
        trainer = self.trainer
        for tracker in self._trackers:
            tracker.forward("on_log", trainer.args, trainer.state, trainer.control, model=trainer.model, logs=logs)

    def close(self) -> None:
        """Finish the trackers' uploads."""
        for tracker in self._trackers:
            tracker.close()

    def load_best(self) -> bool:
        """Load the weights of the best evaluation if the recipe asks for them.

        Returns False if it does not, or if the model has these weights already.
        """
        if self._context.recipe.training.keep != "best" or self.best.step in (0, self.step):
            return False
        load_adapter(self._base.active, self._context.run.best)
        return True

    def _warn_skipped(self, subject_and_verb: str) -> None:
        """Warn once that something is skipped because no process has the whole model."""
        if subject_and_verb not in self._skipped:
            self._skipped.add(subject_and_verb)
            self._warn(f"{subject_and_verb} skipped: the base is sharded across GPUs.", kind="sharded")

    def _sample(self, step: int) -> None:
        """Record replies to prompts from the held-out records, or from the training records if none are held out."""
        if is_sharded():
            self._warn_skipped("Sampled replies are")
            return
        if not self._context.ranks.is_first:
            return
        records = self._data.eval if len(self._data.eval) else self._data.train
        stopped = self._context.controls.local.stopped
        replies = sample_replies(self._base, self._data.template, records, self._context.report, stopped)
        if not stopped.is_set():
            self._context.journal.write(Sample(step=step, replies=[asdict(reply) for reply in replies]))

    def _run_task(self, task: PausedTask) -> None:
        """Run a task with the current weights, then restore the model's mode and its ``requires_grad`` flags."""
        model = self._base.active
        was_training = model.training
        # PEFT changes requires_grad whenever an adapter is switched on or off.
        requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        model.eval()
        try:
            task.run(self._base, self._data.template)
        finally:
            model.train(was_training)
            for parameter, required_grad in requires_grad:
                parameter.requires_grad_(required_grad)

    def _compare_loss(self, step: int, loss: float) -> None:
        self._resume_check.see(step, loss)

    def _warn_of_resume(self, message: str) -> None:
        self._warn(message, kind="resume")

    def _warn(
        self,
        message: str,
        *,
        kind: str,
        step: int | None = None,
        micro_batch: int | None = None,
        accumulation: int | None = None,
        problem: str | None = None,
    ) -> None:
        self._context.journal.write(
            RunWarning(
                message=message,
                kind=kind,
                step=step,
                micro_batch=micro_batch,
                accumulation=accumulation,
                problem=problem,
            )
        )


def _loss_event(step: int, result: HeldOutLoss, records: int) -> Eval:
    return Eval(
        step=step,
        loss=result.loss,
        perplexity=result.perplexity,
        token_accuracy=result.token_accuracy,
        records=records,
        tokens=result.tokens,
    )


def _preference_event(step: int, result: HeldOutPreference) -> Eval:
    rewards = Rewards(chosen=result.chosen, rejected=result.rejected, margin=result.margin, accuracy=result.accuracy)
    return Eval(step=step, loss=result.loss, rewards=rewards, records=result.pairs)
