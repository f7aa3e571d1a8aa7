"""Records are tokenised while the base is loaded, and nobody can tell from the run."""

import json
import threading

import pytest

from tests.engine.runs_of_tiny import adapter_digest, begin, curve, ended, events_of, wait_until
from tests.journals import read_events
from workbench.engine.model.load_base import load_base
from workbench.engine.training import held_base
from workbench.engine.training import tokenizing as module
from workbench.errors import WorkbenchError
from workbench.recipe.text import edit


@pytest.fixture
def gate(monkeypatch):
    """Holds the loading of weights until it is set; ``gate.reached`` once it waits."""
    given, event = load_base, threading.Event()
    event.reached = threading.Event()

    def held(home, model, quantization, report, cancelled, meanwhile):
        def wait(tokenizer):
            meanwhile(tokenizer)
            event.reached.set()
            assert event.wait(120)

        return given(home, model, quantization, report, cancelled, wait)

    monkeypatch.setattr(held_base, "load_base", held)
    yield event
    event.set()


def phases(run):
    return list(dict.fromkeys(event["phase"] for event in events_of(run, "phase")))


def test_the_tokens_are_there_before_the_weights_are(home, recipe, gate, monkeypatch):
    done = threading.Event()
    given = module.encode_dataset

    def told(*args):
        result = given(*args)
        done.set()
        return result

    monkeypatch.setattr(module, "encode_dataset", told)
    run, thread = begin(home, recipe)
    assert done.wait(120)
    assert "tokenizing" not in phases(run)
    gate.set()
    ended(thread)
    assert phases(run)[:3] == ["loading", "tokenizing", "preparing"]
    counts = [event["counts"] for event in events_of(run, "phase") if "counts" in event]
    assert [found["train_records"] for found in counts] == [18]


def test_it_is_the_run_that_tokenises_afterwards(home, recipe, monkeypatch):
    recipe = edit(recipe, {"adapter.lora_dropout": 0.1, "data.eval_fraction": 0.2, "training.eval_steps": 4})
    beside, thread = begin(home, recipe)
    ended(thread)
    monkeypatch.setattr(module.BackgroundTokenizing, "begin", lambda *_: None)
    afterwards, thread = begin(home, recipe)
    ended(thread)
    assert curve(beside) == curve(afterwards)
    assert adapter_digest(beside) == adapter_digest(afterwards)
    assert [event["loss"] for event in events_of(beside, "eval")] == [e["loss"] for e in events_of(afterwards, "eval")]


def test_records_that_are_not_there_are_told_before_anything_is_loaded(home, recipe, gate):
    run, thread = begin(home, edit(recipe, {"data.source": "/nowhere/records.jsonl"}))
    thread.join(60)
    assert thread.error.kind == "data_missing"
    assert not gate.reached.is_set()
    assert phases(run) == ["loading"]
    assert read_events(run.journal)[-1]["reason"] == "error"


def test_a_template_that_cannot_be_used_is_told_before_the_weights_are_loaded(home, recipe, gate):
    run, thread = begin(home, edit(recipe, {"data.template": "no-such-template"}))
    thread.join(60)
    assert thread.error.kind == "template"
    assert not gate.reached.is_set()
    assert phases(run) == ["loading"]


def test_a_mistake_far_inside_the_records_is_told_when_the_base_is_there(home, recipe, gate, tmp_path):
    lines = [json.dumps({"instruction": f"Question {n}?", "response": "Aye."}) for n in range(300)]
    lines[250] = "{"
    (tmp_path / "broken.jsonl").write_text("\n".join(lines))
    run, thread = begin(home, edit(recipe, {"data.source": str(tmp_path / "broken.jsonl")}))
    assert gate.reached.wait(120)
    gate.set()
    thread.join(120)
    assert thread.error.kind == "data_malformed"
    assert "line 251" in thread.error.message
    assert phases(run) == ["loading", "tokenizing"]
    # The base is fit for the next run.
    again, thread = begin(home, recipe, thread.base)
    ended(thread)
    assert len(curve(again)) == 8


def test_a_stop_while_both_are_at_work_ends_both(home, recipe, gate, monkeypatch):
    ends = []

    def slow(records, template, data, report, cancelled):
        wait_until(cancelled, run)
        ends.append(True)
        raise WorkbenchError("BackgroundTokenizing was cancelled.", kind="cancelled")

    monkeypatch.setattr(module, "encode_dataset", slow)
    run, thread = begin(home, recipe)
    assert gate.reached.wait(120)
    thread.controls.stop(save=True)
    wait_until(lambda: ends, run)
    gate.set()
    ended(thread)
    last = read_events(run.journal)[-1]
    assert (last["event"], last["reason"], last["step"]) == ("run_ended", "stopped", 0)


def test_a_base_that_cannot_be_loaded_ends_the_tokenising_too(home, recipe, monkeypatch):
    ends = threading.Event()

    def slow(records, template, data, report, cancelled):
        while not cancelled():
            ends.wait(0.01)
        ends.set()

    def broken(home, model, quantization, report, cancelled, meanwhile):
        meanwhile(None)
        raise WorkbenchError("The weights are damaged.", kind="model_damaged")

    monkeypatch.setattr(module, "encode_dataset", slow)
    monkeypatch.setattr(module.BackgroundTokenizing, "_template", lambda *_: None)
    monkeypatch.setattr(held_base, "load_base", broken)
    _, thread = begin(home, recipe)
    thread.join(60)
    assert thread.error.kind == "model_damaged"
    assert ends.wait(10)
