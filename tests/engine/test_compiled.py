"""Compiled layers: the same losses, nothing left on the model, and compiled only where the recipe asks for it."""

import math
import re
import shutil

import pytest
import torch

from tests.conftest import make_tiny_model, tiny_recipe
from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, resumed
from workbench.models.cache_listing import cached_files, clear
from workbench.recipe.text import edit
from workbench.runs.folder import RunFolder, all_runs
from workbench.storage.paths import Home

COMPILE = "training.torch_compile"
COMPILED = {
    # Few of them: each is more to compile.
    "adapter.target_modules": ["q_proj", "down_proj"],
    COMPILE: True,
    "quantization.compute_dtype": "float32",
    "training.gradient_checkpointing": True,
    "adapter.lora_dropout": 0.1,
    "training.max_steps": 4,
    "training.save_steps": 2,
}


def reason_of(run) -> str:
    """What the run told last of what it decided."""
    return [event["reasons"] for event in events_of(run, "phase") if event.get("reasons")][-1][-1]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, tiny_llama, records):
    """A home, a recipe, and a run of it that was compiled, with its thread."""
    home = Home(tmp_path_factory.mktemp("compiled") / "home")
    recipe = edit(tiny_recipe(tiny_llama, records), COMPILED)
    run, thread = begin(home, recipe)
    ended(thread)
    return home, recipe, run, thread


def test_losses_are_those_of_a_run_that_is_not_compiled(compiled):
    home, recipe, run, thread = compiled
    plain, _ = begin(home, edit(recipe, {COMPILE: False}), thread.base)
    ended(_)
    assert len(curve(run)) == 4
    assert curve(run) != {}
    for (step, loss), (_, other) in zip(sorted(curve(plain).items()), sorted(curve(run).items()), strict=True):
        assert math.isclose(loss, other, rel_tol=1e-4), step
    assert re.fullmatch(r"Layers compiled in \d+ s\.", reason_of(run))
    assert not [event for event in events_of(run, "warning") if event.get("kind") == "torch_compile"]


def test_nothing_of_it_stays_on_the_model(compiled):
    _, _, run, thread = compiled
    assert [name for name, module in thread.base.model.named_modules() if "forward" in module.__dict__] == []
    assert not [name for name in (run.adapter / "adapter_config.json").read_text().split('"') if "_orig_mod" in name]
    assert torch.compiler.is_compiling() is False


def test_a_resumed_run_is_compiled_as_it_was_and_ends_alike(compiled):
    home, _, run, _ = compiled
    copy = RunFolder(home.runs / "compiled-after-2")
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("adapter"))
    lines = [line for line in copy.journal.read_text().splitlines(keepends=True) if '"run_ended"' not in line]
    copy.journal.write_text("".join(lines))
    shutil.rmtree(copy.checkpoints / "checkpoint-4")
    resumed(home, copy)
    told = [event for event in events_of(copy, "phase") if "Layers compiled" in str(event.get("reasons"))]
    assert len(told) == 2
    assert curve(copy) == curve(run)
    assert adapter_digest(copy) == adapter_digest(run)


def test_a_model_that_cannot_be_compiled_is_trained_as_usual(home, recipe, tmp_path):
    from transformers import CTRLLMHeadModel

    folder = make_tiny_model(
        tmp_path / "ctrl", CTRLLMHeadModel, n_embd=64, dff=128, n_layer=2, n_head=4, n_positions=512
    )
    run, thread = begin(home, edit(recipe, {COMPILE: True, "model.source": str(folder)}))
    ended(thread)
    (warning,) = [event for event in events_of(run, "warning") if event.get("kind") == "torch_compile"]
    assert "no standard transformers decoder layers" in warning["message"]
    assert len(curve(run)) == 8


def test_a_run_of_a_version_that_knew_auto_is_read_and_resumed(home, recipe):
    run, thread = begin(home, recipe)
    ended(thread)
    # As that version left it: stopped after its first checkpoint, and nothing in the recipe says what was chosen.
    text = run.recipe_file.read_text()
    run.recipe_file.write_text(text.replace("torch_compile: false", "torch_compile: auto"))
    assert "torch_compile: auto" in run.recipe_file.read_text()
    lines = [line for line in run.journal.read_text().splitlines(keepends=True) if '"run_ended"' not in line]
    run.journal.write_text("".join(lines))
    assert [one.id for one in all_runs(home)] == [run.id]
    assert run.recipe() == recipe
    assert run.recipe_as_run().training.torch_compile is False
    before = curve(run)
    resumed(home, run, thread.base)
    assert curve(run) == before
    assert not events_of(run, "error")


def test_what_was_compiled_is_listed_and_removed(compiled):
    home = compiled[0]
    (found,) = [one for one in cached_files(home) if one.kind == "compiled"]
    assert found.bytes > 10_000
    assert clear(home, ["compiled"]) == {"compiled": found.bytes}
    assert not found.place.exists()
