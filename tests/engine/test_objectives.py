"""Each objective has the loop of every other run: exact resume, smaller batches, requests while it runs, a start."""

import shutil
import threading

import pytest
from safetensors.torch import load_file

from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    begun,
    curve,
    ended,
    events_of,
    resumed,
    split_and_padded,
)
from tests.engine.test_preferences import pairs, preference  # noqa: F401  (fixtures)
from tests.engine.test_resume import killed_after
from workbench.engine.client.protocol import EvaluateRequest
from workbench.engine.generation.evaluate import evaluate
from workbench.engine.steering.controls import Command
from workbench.evaluation.result import read_evaluation
from workbench.recipe.text import edit

KINDS = {
    "orpo": {},
    "kto": {},
    "cpo": {"objective.cpo_alpha": 0.5, "objective.loss_type": "hinge"},
}


def of_kind(recipe, kind, **more):
    return edit(
        recipe, {"objective.kind": kind, "training.per_device_train_batch_size": 4, **KINDS.get(kind, {}), **more}
    )


def rewards_of(run):
    return {event["step"]: event["rewards"] for event in events_of(run, "step")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_and_one_that_ran_out_of_memory_train_the_same(home, preference, kind):  # noqa: F811
    recipe = of_kind(
        preference,
        kind,
        **{
            "data.eval_fraction": 0.2,
            "training.max_steps": 7,
            "training.save_steps": 3,
            "training.logging_steps": 2,
            "training.eval_steps": 4,
            "training.save_total_limit": 10,
        },
    )
    whole, thread = begin(home, recipe)
    ended(thread)
    base = thread.base
    again = killed_after(whole, 4, home)
    resumed(home, again, base)
    assert curve(again) == curve(whole)
    assert rewards_of(again) == rewards_of(whole)
    assert adapter_digest(again) == adapter_digest(whole)
    first, *_, last = events_of(whole, "eval")
    assert last["loss"] < first["loss"]
    assert last["rewards"]["margin"] > first["rewards"]["margin"]
    assert last["records"] == (8 if kind == "kto" else 4)

    more, _ = split_and_padded(home, recipe, base)
    for run in more:
        assert list(curve(run).values()) == pytest.approx(list(curve(whole).values()), abs=2e-5)
        for step, rewards in rewards_of(run).items():
            assert rewards == pytest.approx(rewards_of(whole)[step], abs=2e-4)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_run_is_paused_gets_another_rate_and_stops_early(home, preference, kind):  # noqa: F811
    recipe = of_kind(
        preference,
        kind,
        **{
            "data.eval_fraction": 0.2,
            "training.max_steps": 12,
            "training.eval_steps": 1,
            "training.lr_scheduler_type": "constant",
            "training.warmup_ratio": 0.0,
            "training.early_stopping_patience": 2,
            "training.early_stopping_min_delta": 5.0,
            "training.keep": "best",
        },
    )
    with begun(home, recipe, 1) as (run, thread):
        thread.controls.send(Command("pause", release=True))
        thread.controls.send(Command("learning_rate", 0.001))
        thread.controls.send(Command("resume"))
    ended(thread)
    assert [event["release"] for event in events_of(run, "paused")] == [True]
    # No evaluation is better by so much: the second one after the first ends the run.
    (end,) = events_of(run, "run_ended")
    assert (end["reason"], end["kept_step"], max(curve(run))) == ("early_stopping", 1, 3)
    rates = {event["step"]: event["learning_rate"] for event in events_of(run, "step")}
    assert rates == {1: 0.002, 2: 0.001, 3: 0.001}


def test_a_run_continues_an_adapter_which_is_then_the_reference(home, preference, tmp_path):  # noqa: F811
    first = edit(preference, {"objective.kind": "orpo", "training.max_steps": 4, "training.save_steps": 2})
    made, thread = begin(home, first)
    ended(thread)
    recipe = edit(
        preference,
        {
            "adapter.continue_from": made.id,
            "data.eval_fraction": 0.2,
            "training.max_steps": 6,
            "training.save_steps": 2,
            "training.save_total_limit": 10,
        },
    )
    run, thread = begin(home, recipe, thread.base)
    ended(thread)
    assert (run.start / "adapter_model.safetensors").read_bytes() == (
        made.adapter / "adapter_model.safetensors"
    ).read_bytes()
    before, *_, after = events_of(run, "eval")
    assert before["rewards"] == {"chosen": 0.0, "rejected": 0.0, "margin": 0.0, "accuracy": 0.0}
    assert after["rewards"]["margin"] > 0
    assert events_of(run, "step")[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    request = EvaluateRequest(run=run.id, adapters=[made.id], replies=0, prompts=[])
    file = evaluate(home, request, thread.base, lambda load: load(), lambda progress: None, threading.Event())
    base, tuned, start = (model.figures for model in read_evaluation(file).judged)
    assert base.preference_margin.value < start.preference_margin.value < tuned.preference_margin.value
    assert tuned.preference_accuracy.low <= tuned.preference_accuracy.value == 1.0
    # The other run is not needed to resume.
    shutil.rmtree(made.path)
    again = killed_after(run, 4, home)
    resumed(home, again, thread.base)
    assert curve(again) == curve(run)
    assert adapter_digest(again) == adapter_digest(run)
    # Trained on, the weights are near those that it started from, and not near new ones.
    started, trained = (load_file(folder / "adapter_model.safetensors") for folder in (run.start, run.adapter))
    assert all((trained[name] - weights).abs().max() < 0.05 for name, weights in started.items())
    _, thread = begin(home, edit(recipe, {"adapter.continue_from": str(run.path / "start"), "adapter.r": 4}))
    thread.join(120)
    assert thread.error is not None
    assert f"has r {recipe.adapter.r}, and the recipe 4" in thread.error.message
