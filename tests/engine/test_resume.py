"""A run that was interrupted goes on as if nothing had happened."""

import hashlib
import json
import shutil

import pytest

from workbench.engine.control import Command
from workbench.engine.training import TrainingThread
from workbench.recipe_text import edit
from workbench.runs.checkpoints import checkpoints, newest_whole
from workbench.runs.folder import RunFolder, create_run, summarise
from workbench.runs.journal import read_events

# Three epochs and a bit, dropout, a schedule, an accumulation, and points of the curve further apart than a step.
LONG = {
    "data.eval_fraction": 0.2,
    "training.max_steps": 14,
    "training.gradient_accumulation_steps": 2,
    "training.per_device_train_batch_size": 2,
    "training.logging_steps": 3,
    "training.save_steps": 4,
    "training.lr_scheduler_type": "cosine",
    "training.eval_steps": 5,
    "adapter.lora_dropout": 0.1,
}


def begin(home, recipe, base=None, **options):
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe, base, **options)
    thread.start()
    return run, thread


def go_on(home, run, base=None):
    """Resume a run and wait for its end."""
    thread = TrainingThread(home, run, run.recipe(), base, resume=True)
    thread.start()
    thread.join(240)
    assert thread.error is None, thread.error
    return thread


def curve(run: RunFolder) -> dict[int, float]:
    """Loss by step; a step that was trained again counts as it was the last time."""
    return {event["step"]: event["loss"] for event in read_events(run.journal) if event["event"] == "step"}


def adapter_digest(run: RunFolder) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


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


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "adafactor"])
def test_a_resumed_run_is_the_run_that_was_never_interrupted(home, recipe, optimizer):
    recipe = edit(recipe, LONG | {"training.optim": optimizer, "training.save_total_limit": 10, "adapter.r": 64})
    whole, thread = begin(home, recipe)
    thread.join(240)
    assert thread.error is None
    for step in (4, 7, 13):
        again = killed_after(whole, step, home)
        go_on(home, again)
        assert curve(again) == curve(whole)
        assert adapter_digest(again) == adapter_digest(whole)
        evaluated = [e["step"] for e in read_events(again.journal) if e["event"] == "eval"]
        assert sorted(set(evaluated)) == [0, 5, 10, 14]
        assert summarise(again).state == "finished"
