"""What a run decides of what its recipe leaves open: told, used, kept for as long as the run lasts."""

import json
import shutil

import pytest

from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, resumed
from workbench.engine.training import choice
from workbench.evaluation.report import write_report
from workbench.export.other_tools.axolotl import to_axolotl
from workbench.recipe.resolved import ACCUMULATION, CHECKPOINTING, MICRO_BATCH, resolved
from workbench.recipe.text import edit
from workbench.runs.checkpoints import checkpoints
from workbench.runs.folder import RunFolder

MIB = 2**20
OPEN = {
    CHECKPOINTING: "auto",
    MICRO_BATCH: "auto",
    "training.effective_batch_size": 8,
    "training.max_steps": 6,
    "training.save_steps": 2,
    "training.save_total_limit": 10,
    "adapter.lora_dropout": 0.1,
}


def decided(run: RunFolder) -> list[dict]:
    return [event["chosen"] for event in events_of(run, "phase") if event.get("chosen")]


def memory_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(choice, "_free_bytes", lambda base, processes: size)


def test_an_open_run_is_the_run_with_the_same_values_stated(home, recipe):
    open_recipe = edit(recipe, OPEN)
    run, thread = begin(home, open_recipe)
    ended(thread)
    # The host has room for all that a tiny model can take.
    (chosen,) = decided(run)
    assert chosen == {CHECKPOINTING: False, MICRO_BATCH: 8, ACCUMULATION: 1}
    (told,) = [event for event in events_of(run, "phase") if event.get("reasons")]
    assert told["reasons"][0].startswith("Checkpointing off: ")
    assert told["reasons"][1].startswith("Micro-batch 8 × 1 = 8: ")
    assert run.recipe() == open_recipe
    stated, thread = begin(home, edit(recipe, OPEN | chosen), thread.base)
    ended(thread)
    assert decided(stated) == []
    assert curve(run) == curve(stated)
    assert adapter_digest(run) == adapter_digest(stated)


def test_less_memory_means_smaller_micro_batches_and_a_resumed_run_keeps_to_them(home, recipe, monkeypatch):
    memory_of(monkeypatch, MIB)
    whole, thread = begin(home, edit(recipe, OPEN))
    ended(thread)
    (chosen,) = decided(whole)
    assert chosen == {CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: 8}
    copy = RunFolder(home.runs / "tiny-after-4")
    shutil.copytree(whole.path, copy.path, ignore=shutil.ignore_patterns("adapter", "best"))
    lines = [line for line in copy.journal.read_text().splitlines(keepends=True) if '"run_ended"' not in line]
    copy.journal.write_text("".join(lines))
    for checkpoint in checkpoints(copy.checkpoints):
        if checkpoint.step > 4:
            shutil.rmtree(checkpoint.path)
    memory_of(monkeypatch, 64 * 1024 * MIB)
    resumed(home, copy, thread.base)
    assert decided(copy) == [chosen, chosen]
    assert curve(copy) == curve(whole)
    assert adapter_digest(copy) == adapter_digest(whole)


def test_a_run_that_was_killed_before_its_first_checkpoint_keeps_what_it_decided(home, recipe, monkeypatch):
    memory_of(monkeypatch, MIB)
    run, thread = begin(home, edit(recipe, OPEN))
    ended(thread)
    before = curve(run)
    shutil.rmtree(run.checkpoints)
    memory_of(monkeypatch, 64 * 1024 * MIB)
    resumed(home, run, thread.base)
    first, second = decided(run)
    assert first == second
    assert curve(run) == before
    assert run.recipe_as_run() == resolved(run.recipe(), second)


def test_what_was_used_is_what_is_exported_and_reported(home, recipe):
    run, thread = begin(home, edit(recipe, OPEN | {"training.max_steps": 2}))
    ended(thread)
    values, lacking = to_axolotl(run.recipe_as_run(), "base", [], "")
    assert values["micro_batch_size"] == 8
    assert values["gradient_accumulation_steps"] == 1
    assert values["gradient_checkpointing"] is False
    assert not any("effective_batch" in words for words in lacking)
    training = json.loads(write_report(home, run).json.read_text())["recipe"]["training"]
    assert (training["per_device_train_batch_size"], training["gradient_checkpointing"]) == (8, False)


def test_a_memory_that_cannot_be_judged_takes_the_least(home, recipe, monkeypatch):
    monkeypatch.setattr(choice, "skeleton_of", lambda recipe, base: None)
    run, thread = begin(home, edit(recipe, OPEN | {"training.max_steps": 1}))
    ended(thread)
    (told,) = [event for event in events_of(run, "phase") if event.get("reasons")]
    assert told["chosen"] == {CHECKPOINTING: True, MICRO_BATCH: 1, ACCUMULATION: 8}
    assert "cannot be estimated" in told["reasons"][0]
