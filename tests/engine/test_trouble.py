"""What goes wrong in the middle of a run: memory ends, a number is none, the disk fills."""

import gc
import os
import resource
import shutil
import threading
import time

import pytest
import torch

from tests.conftest import make_tiny_llama
from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    begun,
    curve,
    ended,
    events_of,
    resumed,
    wait_until,
)
from tests.journals import read_events
from workbench.engine.batches.parts import split_batch
from workbench.engine.model.memory_errors import is_out_of_memory
from workbench.engine.steering.controls import Command, Controls
from workbench.engine.storage.disk_full_retry import RetryingJournal, is_disk_full
from workbench.recipe.text import edit
from workbench.runs.checkpoints import checkpoints
from workbench.runs.events import Checkpoint
from workbench.runs.folder import summarise


class Memory:
    """Lets the first layer of every Llama fail as a GPU does, when more tokens than ``limit`` are fed at once."""

    def __init__(self, monkeypatch) -> None:
        from transformers.models.llama.modeling_llama import LlamaModel

        self.limit = 10**9
        self.only_in_training = True
        self.failed = 0
        forward = LlamaModel.forward

        def limited(model, input_ids=None, **options):
            if input_ids.numel() > self.limit and (model.training or not self.only_in_training):
                self.failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return forward(model, input_ids=input_ids, **options)

        monkeypatch.setattr(LlamaModel, "forward", limited)


@pytest.fixture
def memory(monkeypatch):
    return Memory(monkeypatch)


EXACT = {
    "quantization.method": "none",
    "quantization.compute_dtype": "float32",
    "training.learning_rate": 0.001,
    "training.gradient_accumulation_steps": 2,
}


@pytest.mark.parametrize("packing", [False, True])
def test_memory_that_ends_halves_the_micro_batch_and_keeps_the_gradient(home, recipe, memory, packing):
    recipe = edit(recipe, EXACT | {"data.packing": packing, "data.max_length": 96})
    if packing:
        recipe = edit(recipe, {"training.per_device_train_batch_size": 1})
    plain, thread = begin(home, recipe)
    ended(thread)
    fed = max(event["tokens"] for event in events_of(plain, "step")) / 8 / 2
    memory.limit = int(fed * 0.6)
    run, thread = begin(home, recipe, thread.base)
    ended(thread)
    assert memory.failed
    (warning, *_) = [event for event in events_of(run, "warning") if event.get("kind") == "out_of_memory"]
    assert warning["accumulation"] >= 4
    assert "the effective batch and its gradient stay the same" in warning["message"]
    assert curve(run) == pytest.approx(curve(plain), rel=1e-4)
    norms = [{e["step"]: e["grad_norm"] for e in events_of(each, "step")} for each in (run, plain)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    # A step that began anew is counted once.
    assert [e["tokens"] for e in events_of(run, "step")] == [e["tokens"] for e in events_of(plain, "step")]
    assert summarise(run).state == "finished"


def test_memory_that_ends_at_one_record_names_what_takes_most_and_what_would_fit(home, recipe, memory):
    recipe = edit(recipe, {"training.max_steps": 50})
    with begun(home, recipe, 3) as (run, thread):
        memory.limit = 1
    thread.join(120)
    assert thread.error.kind == "out_of_memory"
    assert "Even micro-batch 1 does not fit" in thread.error.message
    assert "Largest part: " in thread.error.message
    assert thread.error.cure
    # What was learned before is there, and can go on.
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert summarise(run).state == "failed"
    memory.limit = 10**9
    resumed(home, run)
    assert summarise(run).state == "finished"


def test_an_evaluation_that_does_not_fit_is_done_in_halves(home, recipe, memory):
    recipe = edit(recipe, {"data.eval_fraction": 0.4})
    plain, thread = begin(home, recipe)
    ended(thread)
    memory.only_in_training, memory.limit = False, 60
    run, thread = begin(home, recipe)
    ended(thread)
    assert memory.failed
    losses = [events_of(each, "eval")[0]["loss"] for each in (plain, run)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # bfloat16, and other shapes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, whose memory is really limited")
def test_a_gpu_that_is_really_full_is_met_with_smaller_parts(home, recipe, tmp_path):
    wide = make_tiny_llama(tmp_path / "wide", hidden_size=1024, layers=4)
    recipe = edit(recipe, {"model.source": str(wide), "training.per_device_train_batch_size": 16})
    plain, thread = begin(home, recipe)
    ended(thread)
    peak = summarise(plain).measured_peak["reserved"]
    total = torch.cuda.get_device_properties(0).total_memory
    del thread
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * peak / total)
    try:
        run, thread = begin(home, recipe)
        ended(thread)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [event for event in events_of(run, "warning") if event.get("kind") == "out_of_memory"]
    assert summarise(run).state == "finished"
    assert summarise(run).measured_peak["reserved"] <= 0.7 * peak


def test_parts_of_a_batch_hold_every_token_once():
    rows = {
        "input_ids": torch.arange(20).reshape(4, 5),
        "labels": torch.arange(20).reshape(4, 5),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]),
    }
    for parts in (1, 2, 3, 4, 8):
        cut = split_batch(rows, parts)
        assert len(cut) == min(parts, 4)
        fed = [token for part in cut for token in part["input_ids"][part["attention_mask"].bool()].tolist()]
        assert fed == rows["input_ids"][rows["attention_mask"].bool()].tolist()
    assert split_batch(rows, 4)[2]["input_ids"].shape == (1, 1)
    flat = {
        "input_ids": torch.arange(10)[None],
        "labels": torch.arange(10)[None],
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2, 3, 0]]),
        "cu_seq_lens_q": torch.tensor([0, 3, 5, 9, 10], dtype=torch.int32),
        "cu_seq_lens_k": torch.tensor([0, 3, 5, 9, 10], dtype=torch.int32),
        "max_length_q": 4,
        "max_length_k": 4,
        "seq_idx": torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2, 3]], dtype=torch.int32),
    }
    first, second = split_batch(flat, 2)
    assert first["input_ids"].tolist() == [[0, 1, 2, 3, 4]]
    assert second["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert second["cu_seq_lens_q"].tolist() == [0, 4, 5]
    assert (first["max_length_q"], second["max_length_k"]) == (3, 4)
    assert second["seq_idx"].tolist() == [[0, 0, 0, 0, 1]]
    assert [part["input_ids"].numel() for part in split_batch(flat, 64)] == [3, 2, 4, 1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ended_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


# -- numbers that are none ----------------------------------------------------------------------------------------


@pytest.fixture
def one_bad_gradient(monkeypatch):
    """The fifth gradient of a run is no number."""
    from workbench.engine.training.trainers.trainer import WorkbenchTrainer

    plain = WorkbenchTrainer.training_step

    def spoiled(self, model, *arguments, **options):
        loss = plain(self, model, *arguments, **options)
        if self.state.global_step == 4:
            next(p for p in model.parameters() if p.grad is not None).grad[0] = float("nan")
        return loss

    monkeypatch.setattr(WorkbenchTrainer, "training_step", spoiled)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_does_harm(home, recipe, one_bad_gradient, monkeypatch):
    run, thread = begin(home, recipe)
    thread.join(120)
    assert thread.error.kind == "nan_loss"
    assert "step 5" in thread.error.message
    assert "learning_rate" in thread.error.cure
    assert max(curve(run)) == 4
    (end,) = events_of(run, "run_ended")
    assert (end["reason"], end["adapter"]) == ("error", str(run.adapter))
    monkeypatch.undo()
    whole, other = begin(home, recipe)
    ended(other)
    resumed(home, run)
    assert curve(run) == curve(whole)
    assert adapter_digest(run) == adapter_digest(whole)


def test_a_step_with_a_bad_gradient_can_be_left_out(home, recipe, one_bad_gradient):
    run, thread = begin(home, edit(recipe, {"training.non_finite": "skip"}))
    ended(thread)
    (warning,) = [event for event in events_of(run, "warning") if event.get("kind") == "skipped_step"]
    assert warning["step"] == 5
    losses = curve(run)
    assert len(losses) == 8
    assert all(isinstance(loss, float) for loss in losses.values())
    assert losses[8] < losses[1]


def test_a_loss_that_does_not_fall_is_hinted_at_and_nothing_is_stopped(home, recipe):
    run, thread = begin(home, edit(recipe, {"training.learning_rate": 1e-9, "training.max_steps": 120}))
    ended(thread)
    (hint,) = events_of(run, "hint")
    assert hint["kind"] == "flat"
    assert "learning_rate" in hint["message"]
    assert summarise(run).state == "finished"


# -- a disk that fills --------------------------------------------------------------------------------------------


@pytest.fixture
def small_files():
    """A function that limits how large a file of this process may grow; Linux answers EFBIG, as for a full quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)


def test_a_disk_that_fills_pauses_the_run_which_goes_on_by_itself(home, recipe, small_files):
    recipe = edit(recipe, {"training.save_steps": 4, "training.max_steps": 12})
    whole, thread = begin(home, recipe)
    ended(thread)
    size = (whole.adapter / "adapter_model.safetensors").stat().st_size
    with begun(home, recipe, 1, thread.base) as (run, thread):
        small_files(size // 2)
    wait_until(lambda: thread.controls.paused, run)
    assert "is full" in thread.controls.paused
    wait_until(lambda: events_of(run, "paused"), run)
    assert max(curve(run)) == 4
    assert not checkpoints(run.checkpoints)
    small_files(None)
    ended(thread)
    assert events_of(run, "resumed")
    assert curve(run) == curve(whole)
    assert adapter_digest(run) == adapter_digest(whole)


def test_a_journal_on_a_full_disk_waits_and_loses_no_line(home, recipe, small_files):
    with begun(home, edit(recipe, {"training.max_steps": 30}), 2) as (run, thread):
        small_files(run.journal.stat().st_size + 700)
    wait_until(lambda: thread.controls.paused, run)
    assert thread.is_alive()
    # What is asked meanwhile is done afterwards.
    thread.controls.send(Command("evaluate"))
    small_files(None)
    ended(thread)
    assert sorted(curve(run)) == list(range(1, 31))
    assert [event["action"] for event in events_of(run, "control")] == ["evaluate"]
    assert [event["seq"] for event in read_events(run.journal)] == list(range(len(read_events(run.journal))))


def test_a_paused_run_is_still_paused_when_there_is_room_again(tmp_path, small_files):
    controls = Controls()
    journal = RetryingJournal(tmp_path / "journal.jsonl", controls)
    controls.enter_pause("Paused; model kept in memory.")
    small_files(10)
    waiting = threading.Thread(target=journal.write, args=(Checkpoint(step=1),))
    waiting.start()
    end = time.monotonic() + 20
    while "is full" not in controls.paused:
        assert time.monotonic() < end
        time.sleep(0.01)
    small_files(None)
    waiting.join(20)
    assert controls.paused == "Paused; model kept in memory."
    journal.close()


def test_a_run_that_waits_for_room_can_be_stopped(home, recipe, small_files):
    with begun(home, edit(recipe, {"training.max_steps": 3000}), 2) as (run, thread):
        small_files(run.journal.stat().st_size + 100)
    wait_until(lambda: thread.controls.paused, run)
    thread.controls.stop(save=False)
    thread.join(60)
    assert not thread.is_alive()
    small_files(None)


def test_a_full_disk_is_told_from_other_errors():
    from safetensors import SafetensorError

    assert is_disk_full(OSError(28, os.strerror(28)))
    assert is_disk_full(OSError(122, os.strerror(122)))
    assert is_disk_full(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert is_disk_full(RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"))
    assert not is_disk_full(OSError(13, os.strerror(13)))
    assert not is_disk_full(ValueError("a value"))


def test_room_for_the_checkpoints_is_asked_for_ahead(home, recipe, monkeypatch):
    from collections import namedtuple

    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 0, 220_000_000))
    run, thread = begin(home, edit(recipe, {"training.save_steps": 1, "training.save_total_limit": 100}))
    thread.join(120)
    assert thread.error.kind == "disk_full"
    assert "101 checkpoints" in thread.error.message
    assert "save_total_limit" in thread.error.cure
    assert not curve(run)
