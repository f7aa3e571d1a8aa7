"""Runs of a tiny model under a test's hand."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from tests.journals import Fields, read_events
from workbench.engine.kernels.loss_path import PADDED
from workbench.engine.model.base import LoadedBase
from workbench.engine.model.loss_check.check import LossCheck
from workbench.engine.training.session import loss_choice
from workbench.engine.training.thread import TrainingThread
from workbench.engine.training.trainers.trainer import WorkbenchTrainer
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder, create_run


def begin(home, recipe, base=None) -> tuple[RunFolder, TrainingThread]:
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe, base)
    thread.start()
    return run, thread


@contextmanager
def held_after(step: int) -> Iterator[None]:
    """A run of this process that begins within computes nothing after this step until the block has ended.

    What a test does to it then comes before its next step, however busy the machine is.
    """
    opened, compute = threading.Event(), WorkbenchTrainer.training_step

    def training_step(self, *arguments, **options):
        if self.state.global_step >= step:
            assert opened.wait(240)
        return compute(self, *arguments, **options)

    with mock.patch.object(WorkbenchTrainer, "training_step", training_step):
        try:
            yield
        finally:
            opened.set()


@contextmanager
def begun(home, recipe, step: int, base=None) -> Iterator[tuple[RunFolder, TrainingThread]]:
    """A run that has done a step, and waits for the end of the block to do the next one."""
    with held_after(step):
        run, thread = begin(home, recipe, base)
        wait_for_step(run, step)
        yield run, thread


@contextmanager
def out_of_memory_once() -> Iterator[None]:
    """A run that begins within runs out of memory in its second step, after the loss, and splits its micro-batches."""
    compute, failed = WorkbenchTrainer._in_parts, []

    def in_parts(self, model, batch, items):
        if self.state.global_step == 1 and not failed:
            failed.append(True)
            compute(self, model, batch, items)
            raise torch.OutOfMemoryError("out of memory")
        return compute(self, model, batch, items)

    with mock.patch.object(WorkbenchTrainer, "_in_parts", in_parts):
        yield


@contextmanager
def padded_batches() -> Iterator[None]:
    """A run that begins within takes padded batches."""
    asked = LossCheck(PADDED, "a test asks for it")
    with mock.patch.object(loss_choice, "check_loss", return_value=asked):
        yield


def split_and_padded(home, recipe, base) -> tuple[list[RunFolder], LoadedBase | None]:
    """The same run twice more: with a micro-batch that does not fit and is split, and with padded batches.

    Returns the runs, and the base that is loaded after them.
    """
    with out_of_memory_once():
        split, thread = begin(home, recipe, base)
        ended(thread)
    assert "out_of_memory" in [event["kind"] for event in events_of(split, "warning")]
    with padded_batches():
        padded, thread = begin(home, recipe, thread.base)
        ended(thread)
    return [split, padded], thread.base


def trl_settings(recipe, folder) -> dict[str, object]:
    """The settings of TRL's own trainers for the same training on this processor, without checkpoints."""
    training = recipe.training
    return {
        "output_dir": str(folder),
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_ratio,
        "gradient_checkpointing": False,
        "bf16": False,
        "logging_steps": 1,
        "seed": training.seed,
        "data_seed": training.seed,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
    }


def ended(thread: TrainingThread, seconds: float = 240) -> TrainingThread:
    """Wait for a run's end, which must come by itself and without an error."""
    thread.join(seconds)
    assert not thread.is_alive()
    assert thread.error is None, thread.error
    return thread


def resumed(home, run, base=None) -> TrainingThread:
    """A run that went on to its end."""
    thread = TrainingThread(home, run, run.recipe(), base, resume=True)
    thread.start()
    return ended(thread)


def curve(run: RunFolder) -> dict[int, float]:
    """Loss by step; a step that was trained again counts as it was the last time."""
    return {event["step"]: event["loss"] for event in events_of(run, "step")}


def events_of(run: RunFolder, kind: str) -> list[Fields]:
    return [event for event in read_events(run.journal) if event["event"] == kind]


def adapter_digest(run: RunFolder) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def wait_until(condition: Callable[[], object], run: RunFolder, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, read_events(run.journal)[-3:]
        time.sleep(0.01)


def wait_for_step(run: RunFolder, number: int) -> None:
    wait_until(lambda: max(curve(run), default=0) >= number, run)


def killed_after(run: RunFolder, step: int, home) -> RunFolder:
    """What a crash leaves that comes after ``step`` steps: the folder of a run as it was then."""
    copy = RunFolder(home.runs / f"{run.id}-{step}")
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("adapter", "best"))
    lines = copy.journal.read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines]
    last = max(at for at, event in enumerate(events) if event["event"] == "step" and event["step"] <= step)
    copy.journal.write_text("".join(lines[: last + 1]) + '{"seq": 99, "eve')
    for checkpoint in checkpoints(copy.checkpoints):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)
    return copy
