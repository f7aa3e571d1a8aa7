"""The parts of a step, the padding and the FLOPs of real runs of a tiny model, against counts of their own."""

import json
import random
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.engine.runs_of_tiny import begin, curve, ended, events_of, padded_batches, resumed
from workbench.engine.batches import stats
from workbench.engine.batches.stats import BatchStats, batch_stats
from workbench.engine.metrics import step_clock
from workbench.engine.metrics.step_clock import HostTimer, StepClock
from workbench.engine.training.session import journal_callback, step_controls
from workbench.estimate.flops import training_flops
from workbench.estimate.gpu_peak import GpuPeak
from workbench.models.build import build_skeleton
from workbench.recipe.text import edit
from workbench.runs.hints.times import WINDOW
from workbench.runs.step_times import PARTS


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Forty records, whose replies have one to thirty words."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "uneven.jsonl"
    lines = [{"instruction": f"Question {n % 5}?", "response": "Aye. " * draw.choice([1, 2, 5, 30])} for n in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


class MovedClock:
    """Python's ``time``, some seconds ahead; the test says how many."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def perf_counter(self) -> float:
        return time.perf_counter() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch) -> MovedClock:
    """What a run reads its time from."""
    clock = MovedClock()
    for module in (step_clock, journal_callback, step_controls):
        monkeypatch.setattr(module, "time", clock)
    return clock


def watched_batches(base) -> list[list[int]]:
    """What reaches the model from here on: for each forward in training, its places and the tokens of each record."""
    seen = []

    def look(model, arguments, options):
        if model.training:
            mask = options["attention_mask"]
            seen.append([mask.numel(), *mask.sum(dim=1).tolist()])

    base.model.model.register_forward_pre_hook(look, with_kwargs=True)
    return seen


def parts_add_up(steps):
    """To the seconds of the steps. A busy machine may take the processor away between one clock and the other."""
    parts = [sum(step["parts"].values()) for step in steps]
    assert sum(parts) == pytest.approx(sum(step["seconds"] for step in steps), rel=0.02, abs=0.02)
    for told, step in zip(parts, steps, strict=True):
        assert told == pytest.approx(step["seconds"], abs=0.2)


def test_the_parts_of_a_step_are_all_of_it(home, recipe, uneven):
    changes = {"training.gradient_accumulation_steps": 3, "training.save_steps": 3, "training.eval_steps": 2}
    run, thread = begin(home, edit(recipe, {**changes, "data.source": str(uneven), "data.max_length": 256}))
    ended(thread)
    steps = events_of(run, "step")
    assert len(steps) == 8
    parts_add_up(steps)
    for step in steps:
        assert tuple(step["parts"]) == PARTS
        assert all(seconds > 0 for seconds in step["parts"].values())
        assert step["parts"]["forward"] + step["parts"]["backward"] > 0.3 * step["seconds"]
        # A processor has no peak to compare with.
        assert step["mfu"] is None
    told = next(event for event in events_of(run, "phase") if event["phase"] == "preparing")
    assert told["peak_flops"] is None
    assert "CPU" in told["no_peak"]


@pytest.mark.parametrize("logging", [1, 4])
def test_padding_and_flops_are_those_of_what_the_model_was_given(home, recipe, uneven, tiny_llama, logging):
    with padded_batches():
        _, first = begin(home, edit(recipe, {"training.max_steps": 1}))
        base = ended(first).base
        seen = watched_batches(base)
        changes = {
            "data.source": str(uneven),
            "data.max_length": 256,
            "data.completion_only": False,
            "training.per_device_train_batch_size": 3,
            "training.gradient_accumulation_steps": 2,
            "training.logging_steps": logging,
        }
        changed = edit(recipe, changes)
        run, thread = begin(home, changed, base)
        ended(thread)
    assert thread.base is base
    flops = training_flops(build_skeleton(tiny_llama), changed.adapter, checkpointing=False)
    steps = events_of(run, "step")
    assert len(steps) == 8 // logging
    batches = iter(seen)
    for step in steps:
        fed = [next(batches) for _ in range(2 * logging)]
        places, tokens = sum(places for places, *_ in fed), sum(sum(lengths) for _, *lengths in fed)
        assert step["padding"] == pytest.approx(1 - tokens / places, abs=1e-4)
        needed = sum(flops.model(lengths, sum(lengths) - len(lengths)) for _, *lengths in fed)
        assert step["flops"] * step["seconds"] == pytest.approx(needed, rel=2e-3)
    assert max(step["padding"] for step in steps) > 0.3


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "flat"])
def test_rows_that_are_full_have_no_padding(home, recipe, uneven, packing):
    changes = {"data.packing": packing, "data.max_length": 64, "training.per_device_train_batch_size": 2}
    run, thread = begin(home, edit(recipe, {**changes, "data.source": str(uneven)}))
    ended(thread)
    assert {step["padding"] for step in events_of(run, "step")} == {0}
    assert all(step["flops"] > 0 for step in events_of(run, "step"))


def test_a_run_that_went_on_tells_its_time_as_before(home, recipe):
    changed = edit(recipe, {"training.save_steps": 2, "training.max_steps": 30})
    run, thread = begin(home, changed)
    while max(curve(run), default=0) < 4:
        thread.join(0.01)
    thread.controls.stop(save=True)
    ended(thread)
    before = len(events_of(run, "step"))
    resumed(home, run)
    steps = events_of(run, "step")
    assert len(steps) > before
    parts_add_up(steps)
    for step in steps:
        assert 0 <= step["padding"] < 1


def test_a_pause_is_no_time_of_a_step(home, recipe, clock):
    from workbench.engine.steering.controls import Command

    run, thread = begin(home, edit(recipe, {"training.max_steps": 12}))
    while max(curve(run), default=0) < 2:
        thread.join(0.01)
    thread.controls.send(Command("pause"))
    while not thread.controls.paused:
        thread.join(0.01)
    # It is an hour long.
    clock.ahead = 3600.0
    thread.controls.send(Command("resume"))
    ended(thread)
    steps = events_of(run, "step")
    parts_add_up(steps)
    assert max(sum(step["parts"].values()) for step in steps) < 1800


def test_waiting_for_data_is_told_once(home, recipe, monkeypatch, clock):
    def slow_count(batch):
        clock.ahead += 10.0
        return batch_stats(batch)

    monkeypatch.setattr(stats, "batch_stats", slow_count)
    run, thread = begin(home, edit(recipe, {"training.max_steps": WINDOW + 5}))
    ended(thread)
    steps = events_of(run, "step")
    assert sum(step["parts"]["data"] for step in steps) > 10 * (WINDOW + 3)
    (hint,) = [event for event in events_of(run, "hint") if event["kind"] == "data"]
    assert hint["step"] == WINDOW + 1
    assert "waits for data" in hint["message"]


def test_what_the_collator_makes_is_counted_where_it_is_made():
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    records = [
        {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
        {"input_ids": [5, 9], "labels": [-100, 9]},
    ]
    padded = DataCollatorForLanguageModeling(pad_token_id=0)(records)
    assert batch_stats(padded) == BatchStats((4, 2), 8, 3)
    flat = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(records)
    assert batch_stats(flat) == BatchStats((4, 2), 6, 3)
    rows = [{**records[0], "seq_lengths": [3, 1]}, {**records[1], "seq_lengths": [2]}]
    packed = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    assert batch_stats(packed).lengths == (3, 1, 2)


class Queue:
    """A device that is so many marks behind."""

    def __init__(self) -> None:
        self.made = self.passed = 0

    def mark(self) -> int:
        self.made += 1
        return self.made

    def between(self, start: int, end: int) -> float | None:
        return 1.0 if end <= self.passed else None


def test_nothing_waits_for_a_device_that_is_behind():
    queue = Queue()
    clock = StepClock(None, GpuPeak(None), queue)
    clock.start()
    for part in ("data", "other", "forward", "backward", "optimizer"):
        clock.enter(part)
    queue.passed = 4
    told = clock.read(5.0)["parts"]
    assert told == {"data": 1, "forward": 0, "backward": 0, "optimizer": 0, "other": 2}
    queue.passed = 8
    # What was not over then is told with the next steps.
    assert clock.read(5.0)["parts"] == {"data": 0, "forward": 1, "backward": 1, "optimizer": 1, "other": 1}


def test_shares_of_a_peak():
    from tests.estimate.architectures import TINY
    from workbench.adapters.settings import AdapterSettings

    settings = AdapterSettings(r=4, target_modules=("q_proj",))
    flops = training_flops(build_skeleton(TINY["llama"]), settings, checkpointing=True)
    clock = StepClock(flops, GpuPeak(1e9), HostTimer())
    clock.start()
    clock.add_batch(BatchStats((10, 30), 60, 25))
    told = clock.read(2.0)
    needed = flops.model([10, 30], 25)
    assert told["mfu"] == pytest.approx(needed / 2e9, abs=1e-4)
    assert told["hfu"] == pytest.approx(flops.hardware([10, 30], 25) / 2e9, abs=1e-4)
    assert told["hfu"] > told["mfu"]
    assert told["padding"] == pytest.approx(1 / 3, abs=1e-4)
    assert "padding" not in clock.read(1.0)


def test_parts_of_a_gpu_are_those_of_its_queue():
    import torch

    from workbench.engine.metrics.step_clock import CudaTimer

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    clock = StepClock(None, GpuPeak(None), CudaTimer())
    clock.start()
    matrix = torch.randn(4096, 4096, device="cuda")
    spent = defaultdict(float)
    for _ in range(3):
        for part, products in (("forward", 20), ("backward", 40)):
            clock.enter(part)
            for _ in range(products):
                matrix = torch.nn.functional.normalize(matrix @ matrix)
    clock.enter("other")
    torch.cuda.synchronize()
    for part, seconds in clock.read(1.0)["parts"].items():
        spent[part] += seconds
    assert spent["backward"] == pytest.approx(2 * spent["forward"], rel=0.3)
    assert spent["forward"] > 0
