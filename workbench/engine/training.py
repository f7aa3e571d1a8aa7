"""One run from its recipe to its adapter, in a background thread, told step by step to its journal.

The thread needs no engine: a notebook or a test starts it the same way and waits with ``join()``.
"""

import hashlib
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from workbench import __version__
from workbench.diagnose import diagnose
from workbench.engine.base import LoadedBase, describe, load_base
from workbench.engine.control import Stop
from workbench.engine.evaluation import held_out_loss
from workbench.engine.hardware import free_cached_memory, hardware_facts, library_versions
from workbench.engine.memory import PeakMeter, predicted_peak
from workbench.engine.protocol import Progress
from workbench.errors import WorkbenchError
from workbench.paths import Home
from workbench.recipe import Recipe
from workbench.recipe_text import to_yaml
from workbench.runs.folder import RunFolder
from workbench.runs.journal import JournalWriter

# More held-out records than this say little more and cost time in every evaluation.
EVALUATED_RECORDS = 256


class TrainingThread(threading.Thread):
    """Trains one run.

    Args:
        base: a base already in memory; used when it is the one the recipe asks for, else it is given up first.
        finished: called last, in this thread, whatever happened.

    After ``join()``: ``base`` is the model in memory with the trained adapter on it (None when loading failed),
    ``error`` what ended the run early (None when nothing did). Nothing is raised out of the thread; the journal
    tells all.
    """

    def __init__(
        self,
        home: Home,
        run: RunFolder,
        recipe: Recipe,
        base: LoadedBase | None = None,
        finished: "Callable[[TrainingThread], None] | None" = None,
    ) -> None:
        super().__init__(name=f"train {run.id}", daemon=True)
        self.home = home
        self.run_folder = run
        self.recipe = recipe
        self.base = base
        self._finished = finished
        self.error: WorkbenchError | None = None
        self.progress: Progress | None = None
        self.stop = Stop()
        self._measured: dict[str, int | None] | None = None

    def run(self) -> None:
        try:
            with JournalWriter(self.run_folder.journal) as journal:
                try:
                    self._train(journal)
                except Exception as error:
                    self._fail(journal, error)
        except OSError as error:
            # The journal itself cannot be written: the log is all that is left to tell it.
            self.error = diagnose(error)
            traceback.print_exc()
        finally:
            if self._finished:
                self._finished(self)

    def _train(self, journal: JournalWriter) -> None:
        process = psutil.Process()
        journal.write(
            "run_started",
            run=self.run_folder.id,
            model=self.recipe.model.source,
            recipe_hash=hashlib.sha256(to_yaml(self.recipe).encode()).hexdigest(),
            recipe=self.recipe.as_dict(),
            versions={"loraworkbench": __version__, **library_versions()},
            hardware=hardware_facts(),
            pid=os.getpid(),
            process_started=process.create_time(),
        )
        _check_disk(self.run_folder.path)
        report = self._reporter(journal)
        if self.base is not None and not self._can_use(self.base):
            self.base = None
            free_cached_memory()
        if self.base is None:
            self.base = load_base(self.home, self.recipe.model, self.recipe.quantization, report, self.stop.is_set)
        self._raise_if_stopped()

        data = self._tokenise(journal, report)
        self._raise_if_stopped()
        trainer = self._trainer(journal, data)
        journal.write(
            "phase",
            phase="preparing",
            fraction=None,
            detail=f"{self.base.precision.compute} ({self.base.precision.reason})",
            base=describe(self.recipe.quantization),
            compute_dtype=self.base.precision.compute,
            adapter_dtype=self.base.precision.adapter,
            trainable_parameters=sum(p.numel() for p in self.base.peft.parameters() if p.requires_grad),
            predicted=predicted_peak(self.home, self.recipe, self.base, data.facts),
        )
        self._evaluate(journal, data.eval, step=0)
        if not self.stop.is_set():
            report(Progress(phase="training", fraction=0.0))
            meter = PeakMeter()
            trainer.train()
            self._measured = meter.read()
        self._finish(journal, trainer, data)

    def _can_use(self, base: LoadedBase) -> bool:
        return base.may_be_trained and base.serves(self.recipe.model, self.recipe.quantization)

    def _reporter(self, journal: JournalWriter) -> Any:
        """Takes progress: shown in the engine's status at once, written to the journal at most twice a second."""
        last = ("", 0.0)

        def report(progress: Progress) -> None:
            nonlocal last
            self.progress = progress
            phase, written = last
            now = time.monotonic()
            if progress.phase != phase or now - written >= 0.5:
                last = (progress.phase, now)
                journal.write("phase", **progress.model_dump())

        return report

    def _tokenise(self, journal: JournalWriter, report: Any) -> Any:
        from workbench.data.encode import encode_dataset
        from workbench.data.sources import load_records
        from workbench.data.templates import Template

        assert self.base is not None
        report(Progress(phase="tokenising"))
        records = load_records(self.recipe.data, self.home)
        template = Template.for_model(self.base.tokenizer, self.recipe.data.template, self.recipe.data.system)
        data = encode_dataset(records, template, self.recipe.data, report, self.stop.is_set)
        self.template = data.template
        if data.facts.loses_many_replies:
            journal.write("warning", message=data.facts.lost_replies)
        for notice in data.notices:
            journal.write("warning", message=notice)
        journal.write("phase", phase="tokenising", fraction=1.0, detail="", counts=data.counts)
        return data

    def _trainer(self, journal: JournalWriter, data: Any) -> Any:
        from trl import SFTTrainer

        from workbench.engine.journal_callback import JournalCallback
        from workbench.engine.translate import sft_config

        assert self.base is not None
        import torch

        # The adapter's first values are drawn when it is attached, before the trainer sets its seed.
        torch.manual_seed(self.recipe.training.seed)
        model = self.base.attach_new(self.recipe.adapter)
        trainer = SFTTrainer(
            model=model,
            args=sft_config(self.recipe, self.base.precision, self.run_folder.checkpoints),
            train_dataset=data.train,
            processing_class=self.base.tokenizer,
            callbacks=[
                JournalCallback(
                    journal,
                    self.stop,
                    self._set_progress,
                    lambda step: self._evaluate(journal, data.eval, step),
                    self.recipe.training.eval_steps,
                )
            ],
        )
        # TRL keeps the adapter of a quantised base in bfloat16 whatever the base computes in.
        self.base.cast_adapter()
        return trainer

    def _set_progress(self, progress: Progress) -> None:
        self.progress = progress

    def _evaluate(self, journal: JournalWriter, records: Any, step: int) -> None:
        """Loss and perplexity on the held-out part; before the first step they are the base's own."""
        assert self.base is not None
        if not len(records) or self.stop.is_set():
            return
        held_out = records.select(range(min(len(records), EVALUATED_RECORDS)))
        report = self._reporter(journal)
        result = held_out_loss(
            self.base, held_out, self.recipe.training.per_device_train_batch_size, report, self.stop.is_set
        )
        if result is not None:
            journal.write(
                "eval",
                step=step,
                loss=result.loss,
                perplexity=result.perplexity,
                token_accuracy=result.token_accuracy,
                records=len(held_out),
                tokens=result.tokens,
            )

    def _finish(self, journal: JournalWriter, trainer: Any, data: Any) -> None:
        assert self.base is not None
        stopped = self.stop.is_set()
        if stopped and not self.stop.save:
            self.base.prepare_for_chat()
            self.base.detach_all()
            journal.write(
                "run_ended",
                reason="discarded",
                run=self.run_folder.id,
                adapter=None,
                step=trainer.state.global_step,
                measured=self._measured,
            )
            return
        self.progress = Progress(phase="saving")
        journal.write("phase", phase="saving", fraction=None, detail="")
        self._save()
        if not stopped:
            self._evaluate(journal, data.eval, step=trainer.state.global_step)
        self.base.prepare_for_chat()
        self.base.keep_trained(self.run_folder.adapter)
        journal.write(
            "run_ended",
            reason="stopped" if stopped else "finished",
            run=self.run_folder.id,
            adapter=str(self.run_folder.adapter),
            step=trainer.state.global_step,
            measured=self._measured,
        )

    def _save(self) -> None:
        """Write adapter, tokenizer and template: aside first, then renamed, so that half a folder is never seen."""
        assert self.base is not None
        aside = self.run_folder.path / "adapter.partial"
        shutil.rmtree(aside, ignore_errors=True)
        self.base.peft.save_pretrained(aside, safe_serialization=True)
        self.base.tokenizer.save_pretrained(aside)
        self.template.save(aside)
        shutil.rmtree(self.run_folder.adapter, ignore_errors=True)
        aside.rename(self.run_folder.adapter)

    def _raise_if_stopped(self) -> None:
        if self.stop.is_set():
            raise StoppedEarly

    def _fail(self, journal: JournalWriter, error: Exception) -> None:
        self._take_adapter_off()
        if isinstance(error, StoppedEarly) or (self.stop.is_set() and getattr(error, "kind", "") == "cancelled"):
            journal.write("run_ended", reason="stopped", run=self.run_folder.id, adapter=None, step=0)
            return
        self.error = diagnose(error)
        trace = "" if isinstance(error, WorkbenchError) else "".join(traceback.format_exception(error))
        journal.write("error", **self.error.as_json(), traceback=trace)
        journal.write("run_ended", reason="error", run=self.run_folder.id, adapter=None)

    def _take_adapter_off(self) -> None:
        """Make the base fit for the next run; one that is broken (a GPU that gave up) is given up too."""
        if self.base is None:
            return
        try:
            self.base.prepare_for_chat()
            self.base.detach_all()
        except Exception:
            traceback.print_exc()
            self.base = None


class StoppedEarly(Exception):  # noqa: N818  (no error: the user asked for it)
    """The run was stopped before its first step."""


def _check_disk(folder: Path) -> None:
    """Raises WorkbenchError when not even a small adapter would fit."""
    free = shutil.disk_usage(folder).free
    if free < 200_000_000:
        raise WorkbenchError(
            f"Only {free / 1e6:.0f} MB are free on the disk of {folder}.",
            "Free some space (200 MB at least), or set output.dir to another disk.",
            kind="disk_full",
        )
