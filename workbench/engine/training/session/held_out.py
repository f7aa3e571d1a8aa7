"""Evaluates a run on its held-out records, and keeps the best evaluation."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from workbench.engine.generation.evaluation import HeldOutLoss
from workbench.engine.generation.label_evaluation import held_out_labels
from workbench.engine.generation.preference_evaluation import PreferenceEvaluator
from workbench.engine.generation.shared_evaluation import shared_held_out_loss
from workbench.engine.kernels.loss_path import LossPath
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.saving import load_adapter
from workbench.engine.model.sharded import is_sharded
from workbench.engine.training.session.best import BestSoFar
from workbench.engine.training.session.context import Context
from workbench.engine.training.session.journal_callback import rewards_of
from workbench.engine.training.trainers.records import LabelTrainer, RecordTrainer
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.progress import Progress, Report
from workbench.runs.events import Eval
from workbench.runs.history import History

if TYPE_CHECKING:
    from datasets import Dataset

    from workbench.engine.metrics.trackers import GuardedTracker

# More held-out records add little information, and cost time in every evaluation.
EVALUATED_RECORDS = 256


class HeldOut:
    """The evaluations of a run.

    Args:
        records: the held-out records.
        path: how the loss is computed.
        save_best: saves the adapter with its current weights as the best.

    Attributes:
        best: the best evaluation so far.
    """

    def __init__(
        self,
        context: Context,
        base: LoadedBase,
        records: "Dataset",
        history: History,
        trainer: WorkbenchTrainer,
        path: LossPath,
        trackers: "Sequence[GuardedTracker]",
        save_best: Callable[[], None],
    ) -> None:
        self._context = context
        self._base = base
        self._records = records
        self._trainer = trainer
        self._path = path
        self._trackers = trackers
        self._save_best = save_best
        self._evaluated = dict(history.evaluations)
        training = context.recipe.training
        self.best = BestSoFar(training.early_stopping_patience, training.early_stopping_min_delta)
        for step, loss in sorted(history.evaluations.items()):
            if step:  # the evaluation before the first step is of the base, not of the adapter
                self.best.add(step, loss)

    def evaluate(self, step: int) -> bool:
        """Compute and record the loss on held-out records after ``step`` steps; at step 0 it is the base's loss.

        Returns whether the run should stop early, according to the recipe.
        """
        records, controls = self._records, self._context.controls
        if is_sharded():
            self._context.warnings.warn_skipped("The held-out loss is")
            return False
        if step in self._evaluated or not len(records) or controls.is_stopped():
            return self.best.is_over
        held_out = records.select(range(min(len(records), EVALUATED_RECORDS)))
        batch = max(self._context.recipe.training.per_device_train_batch_size // self._trainer.parts, 1)

        def report(progress: Progress) -> None:
            phase = progress.phase if step else "base evaluation"
            self._context.report(progress.model_copy(update={"phase": phase}))

        with self._trainer.averaged():
            evaluated = self._evaluate(step, held_out, batch, report)
        if evaluated is None:
            return False
        loss, event = evaluated
        self._evaluated[step] = loss
        is_best = step > 0 and self.best.add(step, loss)
        if is_best and self._context.recipe.training.keep == "best":
            self._save_best()
        self._context.journal.write(msgspec.structs.replace(event, best=is_best))
        self._send_to_trackers(event)
        return self.best.is_over

    def _evaluate(self, step: int, records: "Dataset", batch_size: int, report: Report) -> tuple[float, Eval] | None:
        """The held-out loss and its event, with what else the objective measures; None if the run should stop."""
        base, controls, ranks = self._base, self._context.controls, self._context.ranks
        recipe, trainer, path = self._context.recipe, self._trainer, self._path
        if isinstance(trainer, LabelTrainer):
            labels = held_out_labels(base, records, batch_size, report, controls, ranks, path=path)
            if labels is None:
                return None
            return labels.loss, Eval(
                step=step,
                loss=labels.loss,
                accuracy=labels.accuracy,
                macro_f1=labels.macro_f1,
                records=labels.records,
            )
        if isinstance(trainer, RecordTrainer):
            length = recipe.data.max_length
            evaluator = PreferenceEvaluator(base, recipe.objective, trainer.reference, length, path=path)
            found = evaluator.evaluate(records, batch_size, report, controls, ranks)
            if found is None:
                return None
            rewards = rewards_of(found.figures)
            return found.loss, Eval(step=step, loss=found.loss, rewards=rewards, records=found.records)
        result = shared_held_out_loss(base, records, batch_size, report, controls, ranks, path=path)
        return None if result is None else (result.loss, _loss_event(step, result, len(records)))

    def _send_to_trackers(self, event: Eval) -> None:
        figures: dict[str, object] = {
            "eval_loss": event.loss,
            "eval_perplexity": event.perplexity,
            "eval_token_accuracy": event.token_accuracy,
            "eval_accuracy": event.accuracy,
            "eval_macro_f1": event.macro_f1,
        }
        figures |= {f"eval_rewards/{name}": value for name, value in (event.rewards or {}).items()}
        logs = {name: value for name, value in figures.items() if value is not None}
        trainer = self._trainer
        for tracker in self._trackers:
            tracker.forward("on_log", trainer.args, trainer.state, trainer.control, model=trainer.model, logs=logs)

    def load_best(self) -> bool:
        """Load the weights of the best evaluation if the recipe asks for them.

        Returns False if it does not, or if the model has these weights already.
        """
        if self._context.recipe.training.keep != "best" or self.best.step in (0, int(self._trainer.state.global_step)):
            return False
        load_adapter(self._base.active, self._context.run.best)
        return True


def _loss_event(step: int, result: HeldOutLoss, records: int) -> Eval:
    return Eval(
        step=step,
        loss=result.loss,
        perplexity=result.perplexity,
        token_accuracy=result.token_accuracy,
        records=records,
        tokens=result.tokens,
    )
