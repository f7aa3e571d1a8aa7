"""What can be asked of a live run, and that asking does not change what it learns."""

import threading

import pytest

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    begun,
    curve,
    ended,
    events_of,
    held_after,
    resumed,
    wait_for_step,
    wait_until,
)
from tests.journals import read_events
from workbench.engine.steering.controls import Command
from workbench.recipe.text import edit
from workbench.runs.folder import summarise
from workbench.storage.paths import Home

STEPS = 24


@pytest.fixture(scope="module")
def long_recipe(tiny_llama, records):
    changes = {
        "training.max_steps": STEPS,
        "training.warmup_ratio": 0.07,
        "training.lr_scheduler_type": "linear",
        "adapter.lora_dropout": 0.1,
    }
    return edit(tiny_recipe(tiny_llama, records), changes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, long_recipe):
    """A run that nothing was asked of."""
    run, thread = begin(Home(tmp_path_factory.mktemp("undisturbed") / "home"), long_recipe)
    ended(thread)
    return run


def told(run, action):
    return [event for event in events_of(run, "control") if event["action"] == action]


def test_what_is_asked_between_steps_is_acknowledged_and_changes_nothing(home, long_recipe, undisturbed):
    with begun(home, long_recipe, 2) as (run, thread):
        for action in ("checkpoint", "evaluate", "sample"):
            thread.controls.send(Command(action))
    ended(thread)
    for action in ("checkpoint", "evaluate", "sample"):
        (control,) = told(run, action)
        assert 2 <= control["step"] < STEPS
    step = told(run, "checkpoint")[0]["step"]
    assert step in [event["step"] for event in events_of(run, "checkpoint")]
    assert [event["step"] for event in events_of(run, "eval")] == [0, told(run, "evaluate")[0]["step"], STEPS]
    # Each is told to be done once it is, and what is being done meanwhile is told, too.
    events = read_events(run.journal)
    for action, trace in (("checkpoint", "checkpoint"), ("evaluate", "eval"), ("sample", "sample")):
        done = told(run, action)[0]
        (at,) = [event["seq"] for event in events if event["event"] == trace and event["step"] == done["step"]]
        assert at < done["seq"]
    phases = [(event["phase"], event["detail"]) for event in events_of(run, "phase")]
    assert ("sampling", "reply 1 of 2") in phases
    assert ("saving", "checkpoint") in phases
    names = list(dict.fromkeys(phase for phase, _ in phases))
    assert names == ["loading", "tokenizing", "preparing", "base evaluation", "training", "saving", "evaluating",
                     "sampling"]  # fmt: skip
    after_tokens = phases[max(i for i, (phase, _) in enumerate(phases) if phase == "tokenizing") + 1]
    assert after_tokens == ("loading", "importing the trainer")
    (sample,) = events_of(run, "sample")
    assert len(sample["replies"]) == 2  # as many as are held out
    assert all("Question" in reply["prompt"] for reply in sample["replies"])
    assert curve(run) == curve(undisturbed)
    assert adapter_digest(run) == adapter_digest(undisturbed)


@pytest.mark.parametrize("release", [False, True])
def test_a_pause_holds_the_run_until_it_is_told_to_go_on(home, long_recipe, undisturbed, release):
    with begun(home, long_recipe, 2) as (run, thread):
        thread.controls.send(Command("pause", release=release))
    wait_until(lambda: events_of(run, "paused"), run)
    (paused,) = events_of(run, "paused")
    assert paused["release"] is release
    assert thread.controls.paused
    assert (thread.base is None) is release
    thread.controls.send(Command("checkpoint"))
    thread.controls.send(Command("resume"))
    ended(thread)
    (went_on,) = events_of(run, "resumed")
    assert went_on["step"] == paused["step"]
    assert not thread.controls.paused
    assert told(run, "checkpoint")
    assert curve(run) == curve(undisturbed)
    assert adapter_digest(run) == adapter_digest(undisturbed)


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("save", [False, True])
def test_a_paused_run_can_be_stopped(home, long_recipe, release, save):
    with begun(home, long_recipe, 2) as (run, thread):
        thread.controls.send(Command("pause", release=release))
    wait_until(lambda: events_of(run, "paused"), run)
    thread.controls.stop(save=save)
    ended(thread)
    summary = summarise(run)
    assert (summary.state, summary.reason) == ("stopped", "stopped" if save else "discarded")
    assert (run.adapter / "adapter_model.safetensors").is_file() is save
    assert run.checkpoints.is_dir() is save


@pytest.mark.parametrize("save", [False, True])
def test_a_run_stopped_while_its_base_is_loaded_again_ends_where_it_was(home, long_recipe, monkeypatch, save):
    from workbench.engine.training import held_base

    loads = []

    def load_base(*arguments):
        loads.append(None)
        if len(loads) == 2:
            thread.controls.stop(save=save)
        return load(*arguments)

    load = held_base.load_base
    monkeypatch.setattr(held_base, "load_base", load_base)
    with begun(home, long_recipe, 2) as (run, thread):
        thread.controls.send(Command("pause", release=True))
    wait_until(lambda: events_of(run, "paused"), run)
    thread.controls.send(Command("resume"))
    ended(thread)
    assert len(loads) == 2
    (end,) = events_of(run, "run_ended")
    step = events_of(run, "paused")[0]["step"]
    assert step >= 2
    assert (end["reason"], end["step"]) == ("stopped" if save else "discarded", step)
    assert run.checkpoints.is_dir() is save
    assert (run.adapter / "adapter_model.safetensors").is_file() is save


def test_sampling_that_is_stopped_leaves_the_run_as_it_was(home, long_recipe, undisturbed):
    with begun(home, long_recipe, 2) as (run, thread):
        thread.controls.send(Command("sample"))
        thread.controls.send(Command("stop_sampling"))
    ended(thread)
    (sampled,), (stopped,) = told(run, "sample"), told(run, "stop_sampling")
    assert sampled["step"] == stopped["step"] < STEPS
    assert events_of(run, "sample") == []
    assert curve(run) == curve(undisturbed)


def test_a_run_released_and_stopped_before_its_first_step_has_no_adapter(home, long_recipe):
    run, thread = begin(home, long_recipe)
    thread.controls.send(Command("pause", release=True))
    wait_until(lambda: events_of(run, "paused"), run)
    assert events_of(run, "paused")[0]["step"] == 0
    thread.controls.stop(save=True)
    ended(thread)
    (end,) = events_of(run, "run_ended")
    assert (end["reason"], end.get("adapter"), end["step"]) == ("stopped", None, 0)
    assert not run.adapter.is_dir() or not any(run.adapter.iterdir())


def test_a_run_that_was_stopped_and_saved_goes_on_another_day(home, long_recipe, undisturbed):
    # Several micro-batches a step, so that the stop comes in the middle of one.
    with begun(home, long_recipe, 5) as (run, thread):
        thread.controls.stop(save=True)
    ended(thread)
    stopped_at = summarise(run).step
    assert 5 <= stopped_at < STEPS
    resumed(home, run)
    assert [event["step"] for event in events_of(run, "run_resumed")] == [stopped_at]
    assert curve(run) == curve(undisturbed)
    assert adapter_digest(run) == adapter_digest(undisturbed)


def test_a_stop_in_the_middle_of_a_step_loses_only_that_step(home, recipe, monkeypatch):
    from workbench.engine.training.trainers.trainer import WorkbenchTrainer

    recipe = edit(
        recipe,
        {"training.gradient_accumulation_steps": 4, "training.per_device_train_batch_size": 1, "training.max_steps": 6,
         "adapter.lora_dropout": 0.1},
    )  # fmt: skip
    whole, thread = begin(home, recipe)
    ended(thread)
    micro, stop_at = 0, 4 * 3 + 2
    plain = WorkbenchTrainer.training_step

    def counted(self, *arguments, **options):
        nonlocal micro
        micro += 1
        if micro == stop_at:
            second.controls.stop(save=True)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(WorkbenchTrainer, "training_step", counted)
    run, second = begin(home, recipe)
    ended(second)
    assert micro == stop_at
    assert summarise(run).step == 3
    monkeypatch.undo()
    resumed(home, run)
    assert curve(run) == curve(whole)
    assert adapter_digest(run) == adapter_digest(whole)


def test_the_learning_rate_can_be_changed(home, long_recipe):
    with begun(home, edit(long_recipe, {"training.lr_scheduler_type": "constant"}), 2) as (run, thread):
        thread.controls.send(Command("learning_rate", 0.001))
    ended(thread)
    (control,) = told(run, "learning_rate")
    rates = {event["step"]: event["learning_rate"] for event in events_of(run, "step")}
    assert {rates[step] for step in rates if step <= control["step"]} == {0.02}
    assert {rates[step] for step in rates if step > control["step"]} == {0.001}


def test_a_changed_rate_follows_the_schedule_and_survives_a_resume(home, long_recipe):
    with held_after(6):
        with begun(home, long_recipe, 2) as (run, thread):
            thread.controls.send(Command("learning_rate", 0.002))
        wait_for_step(run, 6)
        thread.controls.stop(save=True)
    ended(thread)
    resumed(home, run)
    rates = {event["step"]: event["learning_rate"] for event in events_of(run, "step")}
    changed_at = told(run, "learning_rate")[0]["step"]
    for step, rate in rates.items():
        peak = 0.02 if step <= changed_at else 0.002
        # Linear, with a warm-up of two steps.
        assert rate == pytest.approx(peak * min((step - 1) / 2, (STEPS + 1 - step) / (STEPS - 2)), rel=1e-6), step


@pytest.mark.parametrize("new", [12, STEPS + 20])
def test_the_number_of_steps_can_be_changed(home, long_recipe, new):
    with begun(home, long_recipe, 2) as (run, thread):
        thread.controls.send(Command("max_steps", new))
    ended(thread)
    control = told(run, "max_steps")[0]
    assert max(curve(run)) == max(new, control["step"])
    summary = summarise(run)
    assert summary.state == "finished"
    assert summary.step == max(new, control["step"])


def test_early_stopping_ends_the_run_and_the_best_adapter_is_kept(home, recipe):
    # A rate at which a tiny model is soon worse than it was.
    recipe = edit(
        recipe,
        {
            "training.max_steps": 400,
            "training.learning_rate": 0.5,
            "training.eval_steps": 2,
            "training.early_stopping_patience": 3,
            "training.early_stopping_min_delta": 0.01,
            "training.keep": "best",
        },
    )
    run, thread = begin(home, recipe)
    ended(thread)
    (end,) = events_of(run, "run_ended")
    assert end["reason"] == "early_stopping"
    assert end["step"] < 400
    evaluations = [event for event in events_of(run, "eval") if event["step"]]
    best = [event for event in evaluations if event["best"]][-1]
    assert end["kept_step"] == best["step"]
    assert not any(event["best"] for event in evaluations[-3:])
    kept = (run.adapter / "adapter_model.safetensors").read_bytes()
    assert kept == (run.best / "adapter_model.safetensors").read_bytes()
    assert summarise(run).state == "finished"


def test_controls_hand_commands_over_in_order():
    from workbench.engine.steering.controls import Controls

    controls = Controls()
    assert controls.take() is None
    assert controls.wait(0.01) is None
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(controls.wait()))
    waiting.start()
    controls.send(Command("evaluate"))
    controls.send(Command("sample"))
    waiting.join(10)
    assert taken == [Command("evaluate")]
    controls.stop(save=False)
    assert controls.wait() is None  # a stop overtakes what was asked before it
    assert controls.take() == Command("sample")
