"""Runs the trainer for one run, from its start or from a checkpoint, until it ends or releases its memory."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.tokens.encode import EncodedData
from workbench.engine.generation.samples import sample_replies
from workbench.engine.metrics.peak_memory import predicted_peak
from workbench.engine.metrics.step_clock import clock_for
from workbench.engine.metrics.trackers import guard_trackers
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.saving import save_adapter
from workbench.engine.model.sharded import is_sharded, is_spread
from workbench.engine.steering.controls import PausedTask, SamplingStop
from workbench.engine.storage.room import check_room_for_checkpoints
from workbench.engine.training.session.best import BestSoFar
from workbench.engine.training.session.context import Context
from workbench.engine.training.session.held_out import HeldOut
from workbench.engine.training.session.journal_callback import JournalCallback
from workbench.engine.training.session.layer_memory import compute_mlps_in_pieces, keep_checkpoints_on_host
from workbench.engine.training.session.loss_choice import add_router_loss, choose_loss_path, use_loss_path
from workbench.engine.training.session.make_trainer import make_trainer
from workbench.engine.training.session.resume_check import ResumeCheck, conditions_of, differences
from workbench.engine.training.session.step_controls import ExitReason, LoopExit, RunHooks, StepControls
from workbench.progress import Progress
from workbench.runs.checkpoints import Checkpoint
from workbench.runs.events import Phase, Sample
from workbench.runs.history import History

if TYPE_CHECKING:
    from workbench.engine.training.choice import Decision


class Session:
    """Connects one run's trainer with its journal, controls, evaluations and trackers.

    It is created after the base is loaded and the records are tokenized.

    Attributes:
        step_controls: applies the user's requests between steps.

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
            context.recipe.training.eval_steps,
        )
        self.trainer = make_trainer(context, base, data, self._clock, [self.step_controls, self._journal_callback])
        self._loss_check = choose_loss_path(context, base, data, history)
        use_loss_path(context, base, self.trainer, self._loss_check)
        add_router_loss(context, base, data, self.trainer, self._loss_check.path)
        self._kernels = self._apply_fused_kernels()
        self._predicted = (
            predicted_peak(context.home, context.recipe, base, data.facts, self.trainer.fullest_micro_batch())
            if context.ranks.is_first
            else None
        )
        host_bytes = (self._predicted or {}).get("host_bytes", 0)
        notices = (
            keep_checkpoints_on_host(context, base, self.trainer, context.ranks.broadcast(host_bytes) or 0),
            compute_mlps_in_pieces(context, base, self.trainer),
        )
        self._reasons = [*choice.reasons, *filter(None, notices)]
        self._trackers = guard_trackers(self.trainer, context.run, context.warnings.warn)
        self._held_out = HeldOut(
            context,
            base,
            data.eval,
            history,
            self.trainer,
            self._loss_check.path,
            self._trackers,
            lambda: self.save(context.run.best),
        )
        self.step_controls.trainer = self.trainer
        if history.max_steps:
            self.trainer.args.max_steps = history.max_steps
        check_room_for_checkpoints(context.run.path, context.recipe.training, base.active)
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

    def _apply_fused_kernels(self) -> str:
        """Apply the fused kernels that the recipe asks for; returns their description, empty for none."""
        kernels = self._context.recipe.training.kernels
        if kernels == "none":
            return ""
        if is_spread():
            self._context.warnings.warn_skipped("Fused kernels are")
            return ""
        fused = self._base.apply_fused_kernels(kernels)
        for notice in fused.notices:
            self._context.warnings.warn(notice, kind="kernels")
        return fused.description

    def _record_preparation(self) -> None:
        """Write into the journal how the run will train."""
        if not self._context.ranks.is_first:
            return
        base = self._base
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
                reasons=self._reasons,
                predicted=self._predicted,
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
            self._context.warnings.warn_skipped("Compiled layers are")
            return
        from workbench.engine.training.session.layer_compilation import compile_layers

        context = self._context
        context.report(Progress(phase="preparing", detail="compiling the layers"))
        seconds, problem = compile_layers(self.trainer, context.ranks, context.home.cache / "compiled" / "code")
        if problem:
            self._context.warnings.warn(f"Not compiled: {problem}.", kind="torch_compile")
        reasons = [*self._reasons, *([] if problem else [f"Layers compiled in {seconds:.0f} s."])]
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
        with self.trainer.averaged():
            weights = self.trainer.full_state_dict() if is_sharded() else None
            if not self._context.ranks.is_first:
                return
            template = self._data.template
            self._context.journal.retry_while_full(lambda: save_adapter(self._base, template, folder, weights))

    def settle(self) -> None:
        """As :meth:`WorkbenchTrainer.settle`."""
        self.trainer.settle()

    # -- between steps --------------------------------------------------------------------------------------------

    def evaluate(self, step: int) -> bool:
        """As :meth:`HeldOut.evaluate`."""
        return self._held_out.evaluate(step)

    def close(self) -> None:
        """Finish the trackers' uploads."""
        for tracker in self._trackers:
            tracker.close()

    def load_best(self) -> bool:
        """As :meth:`HeldOut.load_best`."""
        return self._held_out.load_best()

    @property
    def best(self) -> BestSoFar:
        """The best evaluation so far."""
        return self._held_out.best

    def _sample(self, step: int) -> None:
        """Record replies to prompts from the held-out records, or from the training records if none are held out."""
        if is_sharded():
            self._context.warnings.warn_skipped("Sampled replies are")
            return
        if not self._context.ranks.is_first:
            return
        records = self._data.eval if len(self._data.eval) else self._data.train
        controls = self._context.controls
        stop = SamplingStop(controls)
        with self.trainer.averaged():
            replies = sample_replies(self._base, self._data.template, records, self._context.report, stop)
        if stop.is_set():
            replies = replies[:-1]  # the last one may lack its end
        if replies and not controls.local.is_stopped():
            self._context.journal.write(Sample(step=step, replies=[asdict(reply) for reply in replies]))

    def _run_task(self, task: PausedTask) -> None:
        """Run a task with the current weights, then restore the model's mode and its ``requires_grad`` flags."""
        model = self._base.active
        was_training = model.training
        # PEFT changes requires_grad whenever an adapter is switched on or off.
        requires_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        model.eval()
        try:
            with self.trainer.averaged():
                task.run(self._base, self._data.template)
        finally:
            model.train(was_training)
            for parameter, required_grad in requires_grad:
                parameter.requires_grad_(required_grad)

    def _compare_loss(self, step: int, loss: float) -> None:
        self._resume_check.see(step, loss)

    def _warn_of_resume(self, message: str) -> None:
        self._context.warnings.warn(message, kind="resume")
