"""Evaluates runs whose adapter has a head of its own: labels against the majority class, scores against chance."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench import __version__
from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.generation.candidates import BaseProvider, Candidate, share_of_progress, timed
from workbench.engine.generation.label_evaluation import head_outputs_of
from workbench.engine.model.adapter_folder import check_adapter
from workbench.engine.model.hardware import library_versions
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.errors import WorkbenchError
from workbench.evaluation.bootstrap import DRAWS, LEVEL
from workbench.evaluation.eval_set import EvalSet
from workbench.evaluation.head_metrics import CHANCE, MAJORITY, label_metrics, reward_metrics
from workbench.evaluation.result import EvaluatedModel, Evaluation, ModelMetrics, PerRecord
from workbench.progress import Report
from workbench.recipe.data_sources import source_text
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.runs.folder import RunFolder
from workbench.runs.replay import Replay

_Metrics = tuple[dict[str, ModelMetrics], dict[str, ModelMetrics]]


@dataclass(frozen=True)
class HeadEvaluation:
    """What is evaluated, on which records.

    Attributes:
        data: where the records are from. is_own: they are the run's held-out records.
    """

    run: RunFolder
    recipe: Recipe
    request: EvaluateRequest
    data: DataSection
    is_own: bool
    eval_set: EvalSet

    def evaluate(
        self, candidates: Sequence[Candidate], bases: BaseProvider, report: Report, cancelled: Callable[[], bool]
    ) -> Evaluation:
        """Evaluate the candidates, which are adapters.

        Raises:
            WorkbenchError: one of them has no head, or ``kind="cancelled"``.
        """
        samples = self.eval_set.samples
        rows = self.eval_set.rows
        heads = [self._head(candidate) for candidate in candidates]
        batch = self.recipe.training.largest_micro_batch
        outputs: dict[str, list[list[float]]] = {}
        for number, candidate in enumerate(candidates):
            with bases.activated(candidate, exact_weights=True) as model, timed(candidate.seconds):
                progress = share_of_progress(report, number, list(candidates))
                path = bases.loss_path(rows)
                outputs[candidate.name] = head_outputs_of(model, rows, batch, progress, cancelled, path=path)
            if cancelled():
                raise WorkbenchError("The evaluation was stopped before anything could be compared.", kind="cancelled")
        where = [sample.where for sample in samples]
        if heads[0].kind == "reward":
            chosen = {name: [scores[0] for scores in found[: len(samples)]] for name, found in outputs.items()}
            rejected = {name: [scores[0] for scores in found[len(samples) :]] for name, found in outputs.items()}
            margins = {
                name: [one - other for one, other in zip(chosen[name], rejected[name], strict=True)] for name in chosen
            }
            found = reward_metrics(margins, draws=DRAWS, seed=self.request.seed)
            return self._result(CHANCE, candidates, found, PerRecord(where=where, scores=chosen, rejected=rejected))
        actual = [str(sample.label) for sample in samples]
        predicted = {MAJORITY: [self._majority(actual)] * len(actual)}
        for head, (name, of_candidate) in zip(heads, outputs.items(), strict=True):
            predicted[name] = [head.labels[scores.index(max(scores))] for scores in of_candidate]
        found = label_metrics(actual, predicted, draws=DRAWS, seed=self.request.seed)
        return self._result(MAJORITY, candidates, found, PerRecord(where=where, label=actual, predicted=predicted))

    def _head(self, candidate: Candidate) -> SequenceHead:
        folder = candidate.target.adapter if candidate.target is not None else None
        assert folder is not None
        head = SequenceHead.of(folder, check_adapter(folder))
        if head is None or head.kind != self.recipe.objective.kind:
            raise WorkbenchError(
                f"{candidate.name} was not trained for {self.recipe.objective.kind}.",
                "Evaluate it through the run that it belongs to.",
                kind="adapter",
            )
        return head

    def _majority(self, actual: Sequence[str]) -> str:
        """The most frequent label of the run's records, or, if its journal does not say it, of those evaluated."""
        counts = (Replay.of(self.run.journal).facts.counts or {}).get("labels")
        known = counts if isinstance(counts, dict) and counts else Counter(actual)
        return str(max(known, key=lambda label: known[label]))

    def _result(
        self, baseline: str, candidates: Sequence[Candidate], found: _Metrics, per_record: PerRecord
    ) -> Evaluation:
        figures, minus = found
        folders = {candidate.name: candidate.target.adapter for candidate in candidates if candidate.target}
        seconds = {candidate.name: candidate.seconds for candidate in candidates}
        return Evaluation(
            time=time.time(),
            run=self.run.id,
            model=self.recipe.model.source,
            source=source_text(self.data.source),
            own=self.is_own,
            records=len(per_record.where),
            more=self.eval_set.has_more,
            left_out=self.eval_set.skipped,
            tokens=sum(len(sample.input_ids) for sample in self.eval_set.samples),
            max_length=self.data.max_length,
            referenced=0,
            too_long=0,
            max_new_tokens=0,
            seed=self.request.seed,
            draws=DRAWS,
            level=LEVEL,
            judged=[
                EvaluatedModel(
                    name=name,
                    folder=_text(folders.get(name)),
                    figures=figures[name],
                    minus=minus.get(name),
                    seconds=seconds.get(name, []),
                )
                for name in (baseline, *folders)
            ],
            answered=[],
            per_record=per_record,
            versions={"loraworkbench": __version__, **library_versions()},
        )


def _text(folder: Path | None) -> str | None:
    return None if folder is None else str(folder)
