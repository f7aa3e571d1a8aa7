"""A run that was interrupted goes on as if nothing had happened."""

import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, killed_after, resumed
from workbench.engine.model.base import LoadedBase
from workbench.recipe.text import edit, to_yaml
from workbench.runs import checkpoints as run_checkpoints
from workbench.runs.checkpoints import _write_manifest, checkpoints, find_damage, newest_intact, write_checkpoint
from workbench.runs.folder import RunFolder, summarise
from workbench.storage.paths import Home

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
# A point of the curve a step, and every checkpoint kept.
EACH_STEP = {"training.logging_steps": 1, "training.save_total_limit": 10}


@pytest.fixture(scope="module")
def long(tmp_path_factory, tiny_llama, records) -> tuple[RunFolder, LoadedBase]:
    """An uninterrupted run of ``LONG``, and its base."""
    return whole_run(tmp_path_factory, edit(tiny_recipe(tiny_llama, records), LONG))


@pytest.fixture(scope="module")
def each_step(tmp_path_factory, tiny_llama, records) -> tuple[RunFolder, LoadedBase]:
    """An uninterrupted run of ``LONG`` and ``EACH_STEP``, and its base."""
    return whole_run(tmp_path_factory, edit(tiny_recipe(tiny_llama, records), LONG | EACH_STEP))


def whole_run(tmp_path_factory, recipe) -> tuple[RunFolder, LoadedBase]:
    run, thread = begin(Home(tmp_path_factory.mktemp("whole") / "home"), recipe)
    ended(thread)
    return run, thread.base


# Noise on the embeddings, a learning rate for each matrix, a schedule that stays up, an order of its own.
KNOBS = {
    "training.neftune_noise_alpha": 5.0, "training.loraplus_lr_ratio": 4.0, "training.data_seed": 7,
    "training.lr_scheduler_type": "cosine_with_min_lr", "training.lr_scheduler_kwargs": {"min_lr_rate": 0.2},
}  # fmt: skip


# After which steps a run was killed: right after a checkpoint, between two, near the end.
@pytest.mark.parametrize(
    ("optimizer", "changes", "killed"),
    [
        ("adamw_torch_fused", {}, (4, 7, 13)),
        ("adamw_8bit", {}, (7,)),
        ("paged_adamw_32bit", {"training.gradient_checkpointing": "offload", "training.tiled_mlp": True}, (7,)),
        ("adafactor", {}, (7,)),
        ("ademamix_8bit", KNOBS, (7,)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_resumed_run_is_the_run_that_was_never_interrupted(home, recipe, optimizer, changes, killed):
    kept = {"training.save_total_limit": 10, "adapter.r": 64}
    recipe = edit(recipe, LONG | kept | changes | {"training.optim": optimizer})
    whole, thread = begin(home, recipe)
    ended(thread)
    for step in killed:
        again = killed_after(whole, step, home)
        resumed(home, again, thread.base)
        assert curve(again) == curve(whole)
        assert adapter_digest(again) == adapter_digest(whole)
        assert {event["step"] for event in events_of(again, "eval")} == {0, 5, 10, 14}
        assert [event["step"] for event in events_of(again, "run_resumed")] == [step // 4 * 4]
        assert summarise(again).state == "finished"


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(home, long):
    whole, base = long
    again = killed_after(whole, 3, home)
    resumed(home, again, base)
    assert curve(again) == curve(whole)
    assert adapter_digest(again) == adapter_digest(whole)


DAMAGES = {
    "optimizer.pt": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "adapter_model.safetensors": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    "trainer_state.json": lambda file: file.unlink(),
    "manifest.json": lambda file: file.write_text("{"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(home, long, name):
    whole, base = long
    again = killed_after(whole, 14, home)
    assert [made.step for made in checkpoints(again.checkpoints)] == [12, 14]
    DAMAGES[name](again.checkpoints / "checkpoint-14" / name)
    assert find_damage(again.checkpoints / "checkpoint-14")
    assert not find_damage(again.checkpoints / "checkpoint-12")
    resumed(home, again, base)
    assert [event["step"] for event in events_of(again, "run_resumed")] == [12]
    assert any("checkpoint-14 is damaged" in event["message"] for event in events_of(again, "warning"))
    assert adapter_digest(again) == adapter_digest(whole)


def test_a_checkpoint_that_was_being_replaced_when_its_process_was_killed_is_found_again(tmp_path, monkeypatch):
    def fill(folder):
        folder.mkdir()
        (folder / "weights").write_bytes(b"w" * 1000)

    class Killed(BaseException):
        pass

    write_checkpoint(tmp_path, 3, fill, keep=1)
    rename, renamed = Path.rename, []

    def killed_before_the_second(self, target):
        renamed.append(self)
        if len(renamed) == 2:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed_before_the_second)
        # What a killed process would not have done either.
        patched.setattr(run_checkpoints, "restore_replaced", lambda folder: None)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            write_checkpoint(tmp_path, 3, fill, keep=1)
    assert checkpoints(tmp_path) == []
    found, damaged = newest_intact(tmp_path)
    assert (found.step, damaged) == (3, [])
    write_checkpoint(tmp_path, 3, fill, keep=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-3"]


def test_an_adapter_that_was_being_replaced_when_its_process_was_killed_is_not_lost(tmp_path, monkeypatch):
    from workbench.engine.model.saving import copy_adapter

    old, new, place = tmp_path / "old", tmp_path / "new", tmp_path / "adapter"
    for folder in (old, new):
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_text(folder.name)
    copy_adapter(old, place)
    rename = Path.rename

    def refused(self, target):
        if self.name == "adapter.partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refused)
        with pytest.raises(OSError, match="Input/output"):
            copy_adapter(new, place)
    assert (place / "adapter_model.safetensors").read_text() == "old"
    copy_adapter(new, place)
    assert (place / "adapter_model.safetensors").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "new", "old"]


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_run_killed_twice_is_the_run_that_was_never_interrupted(home, recipe, each_step, quantization):
    whole, base = each_step
    if quantization == "none":
        whole, thread = begin(home, edit(recipe, LONG | EACH_STEP | {"quantization.method": quantization}))
        base = ended(thread).base
    # Between two checkpoints; then, resumed, right after the next one was written.
    once = killed_after(whole, 6, home)
    resumed(home, once, base)
    twice = killed_after(once, 8, home)
    resumed(home, twice, base)
    assert [event["step"] for event in events_of(twice, "run_resumed")] == [4, 8]
    assert curve(twice) == curve(whole)
    assert adapter_digest(twice) == adapter_digest(whole)
    assert not [event for event in events_of(twice, "warning") if event.get("kind") == "resume"]


def test_a_run_killed_in_the_middle_of_a_checkpoint_resumes_from_the_one_before(home, long):
    whole, base = long
    again = killed_after(whole, 13, home)
    half = again.checkpoints / "partial" / "checkpoint-16"
    shutil.copytree(again.checkpoints / "checkpoint-12", half)
    (half / "manifest.json").unlink()
    (half / "optimizer.pt").write_bytes(b"half")
    resumed(home, again, base)
    assert [event["step"] for event in events_of(again, "run_resumed")] == [12]
    assert adapter_digest(again) == adapter_digest(whole)
    assert not (again.checkpoints / "partial").exists()


def test_a_resume_that_is_not_exact_says_so(home, each_step):
    whole, base = each_step
    again = killed_after(whole, 6, home)
    # The same checkpoint by name and manifest, with other random numbers in it.
    checkpoint = again.checkpoints / "checkpoint-4"
    state = torch.load(checkpoint / "rng_state.pth", weights_only=False)
    state["cpu"] = torch.Generator().manual_seed(99).get_state()
    torch.save(state, checkpoint / "rng_state.pth")
    (checkpoint / "manifest.json").unlink()
    _write_manifest(checkpoint)
    resumed(home, again, base)
    (warning,) = [event for event in events_of(again, "warning") if event.get("kind") == "resume"]
    assert warning["message"].startswith("The loss of step 5 is ")
    assert "the resumed run is not identical. Likely reason: " in warning["message"]


def test_a_resume_under_other_conditions_names_them(home, each_step, tmp_path):
    whole, base = each_step
    again = killed_after(whole, 6, home)
    recipe = whole.recipe()
    lines = Path(recipe.data.source).read_text().splitlines(keepends=True)
    other = tmp_path / "others.jsonl"
    other.write_text("".join(line.replace("Aye", "Nay") for line in lines))
    again.recipe_file.write_text(to_yaml(edit(recipe, {"data.source": str(other)})))
    text = again.journal.read_text()
    version = metadata.version("torch")
    again.journal.write_text(text.replace(f'"torch":"{version}"', '"torch":"1.0"'))
    resumed(home, again, base)
    told = [event["message"] for event in events_of(again, "warning") if event.get("kind") == "resume"]
    changed = f"the training records changed; torch 1.0 → {version}"
    assert told[0].startswith(f"This run resumes with changed conditions: {changed}. ")
    assert told[1].endswith(f"Likely reason: {changed}.")


def test_old_checkpoints_go_only_when_a_new_one_is_there(tmp_path):
    def fill(folder):
        folder.mkdir()
        (folder / "weights").write_bytes(b"w" * 1000)

    def fill_half(folder):
        fill(folder)
        raise OSError(28, "No space left on device")

    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, fill, keep=2)
    assert [made.step for made in checkpoints(tmp_path)] == [2, 3]
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, 4, fill_half, keep=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    found, damaged = newest_intact(tmp_path)
    assert (found.step, damaged) == (3, [])
    # The same step once more: never a moment without it.
    write_checkpoint(tmp_path, 3, fill, keep=2)
    assert [made.step for made in checkpoints(tmp_path)] == [2, 3]


def test_a_checkpoint_is_an_adapter_folder_without_pickled_settings(home, recipe):
    run, thread = begin(home, edit(recipe, {"training.save_steps": 4}))
    ended(thread)
    folder = run.checkpoints / "checkpoint-4"
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    assert not (folder / "training_args.bin").exists()
    assert not (run.path / "README.md").exists()
    assert not (run.checkpoints / "README.md").exists()
