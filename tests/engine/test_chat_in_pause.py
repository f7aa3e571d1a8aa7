"""A run that is paused answers with its weights as they are, and goes on as if nobody had asked."""

import threading

import pytest

from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    curve,
    ended,
    events_of,
    held_after,
    wait_for_step,
    wait_until,
)
from tests.engine.voices_of_tiny import answered
from workbench.engine.client.protocol import Message, ReplyPiece, ReplyRequest, Sampling
from workbench.engine.daemon.engine import Engine
from workbench.engine.steering.controls import Command
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit

GREEDY = Sampling(temperature=0, max_new_tokens=12)


def question(target, sampling=GREEDY, **changes) -> ReplyRequest:
    return ReplyRequest(
        target=target, messages=[Message(role="user", content="Question 3?")], sampling=sampling, **changes
    )


@pytest.fixture
def long_recipe(recipe):
    # Dropout, so that a random number drawn by a reply would show; an odd scale of the paused adapter, too.
    return edit(recipe, {"training.max_steps": 24, "adapter.lora_dropout": 0.1})


@pytest.fixture
def engine_here(home):
    engine = Engine(home)
    yield engine
    engine.end()
    deadline = threading.Event()
    for _ in range(600):
        if not engine.is_busy:
            return
        deadline.wait(0.1)


def paused(engine, recipe, *, release=False, step=3):
    """A run that stands still after some steps."""
    with held_after(step):
        run = engine.train(recipe)
        wait_for_step(run, step)
        engine.control(Command("pause", release=release))
    wait_until(lambda: events_of(run, "paused"), run)
    return run


@pytest.mark.parametrize("method", ["nf4", "none"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_replies_of_a_paused_run_change_nothing(home, long_recipe, engine_here, method, checkpointing):
    recipe = edit(long_recipe, {"quantization.method": method, "training.gradient_checkpointing": checkpointing})
    undisturbed, thread = begin(home, recipe)
    ended(thread)
    run = paused(engine_here, recipe)
    assert engine_here.status().state == "paused"
    base = engine_here.training.base
    trained = {name for name, parameter in base.peft.named_parameters() if parameter.requires_grad}
    now, end, _ = answered(engine_here, question(run.id))
    assert end.tokens > 0
    drawn, *_ = answered(engine_here, question(run.id, Sampling(temperature=1.5, max_new_tokens=12, seed=5)))
    bare, *_ = answered(engine_here, question(run.id, adapter=False))
    assert answered(engine_here, question(recipe.model.source, adapter=False))[0] == bare
    assert answered(engine_here, question(run.id, scale=0))[0] == bare
    assert answered(engine_here, question(run.id, scale=2))[0] != bare
    assert answered(engine_here, question(run.id))[0] == now
    assert len({now, drawn, bare}) == 3
    assert engine_here.status().state == "paused"
    assert base.peft.training
    assert not base.packing.has_packed_layers
    assert {name for name, parameter in base.peft.named_parameters() if parameter.requires_grad} == trained
    training = engine_here.training
    engine_here.control(Command("resume"))
    ended(training)
    assert curve(run) == curve(undisturbed)
    assert adapter_digest(run) == adapter_digest(undisturbed)
    # No control was written for a reply: it is none of the run's affairs.
    assert [event["action"] for event in events_of(run, "control")] == ["pause"]


def test_only_the_run_and_its_base_answer_in_a_pause(home, long_recipe, engine_here):
    from tests.engine.voices_of_tiny import run_with_adapter

    other = run_with_adapter(home, long_recipe, 1)
    run = paused(engine_here, long_recipe)
    for request in (question(other.id), question(run.id, merged=True), question(f"{run.id}@3")):
        with pytest.raises(WorkbenchError, match=f"Run {run.id} is paused") as caught:
            answered(engine_here, request)
        assert caught.value.kind == "busy"


def test_a_stop_ends_the_reply_and_saves(home, long_recipe, engine_here):
    run = paused(engine_here, long_recipe)
    began, done, last = threading.Event(), threading.Event(), []

    def take(piece):
        last.append(piece)
        if piece.text:
            began.set()

    engine_here.reply(
        question(run.id, Sampling(temperature=5, max_new_tokens=450, seed=1)), take, lambda error: done.set()
    )
    assert began.wait(60)
    training = engine_here.training
    engine_here.stop(save=True)
    assert done.wait(60)
    assert isinstance(last[-1], ReplyPiece)
    assert last[-1].reason in ("cancelled", "end")
    ended(training)
    assert (run.adapter / "adapter_model.safetensors").is_file()


def test_a_question_that_comes_after_the_resume_is_refused_not_forgotten(home, long_recipe, engine_here):
    run = paused(engine_here, edit(long_recipe, {"training.max_steps": 400}))
    controls = engine_here.training.controls
    errors, done = [], threading.Event()

    def finished(error):
        errors.append(error)
        done.set()

    engine_here.control(Command("resume"))
    try:
        engine_here.reply(question(run.id), lambda piece: None, finished)
    except WorkbenchError as error:
        finished(error)
    assert done.wait(60)
    assert errors[0].kind == "busy"
    assert "training a run" in errors[0].message
    wait_until(lambda: events_of(run, "resumed"), run)
    assert not controls.paused
    with pytest.raises(WorkbenchError, match="busy training a run"):
        answered(engine_here, question(run.id))


def test_a_run_that_gave_its_memory_back_says_so(home, long_recipe, engine_here):
    run = paused(engine_here, long_recipe, release=True)
    with pytest.raises(WorkbenchError, match="its model is not in memory"):
        answered(engine_here, question(run.id))
    assert engine_here.training.base is None
