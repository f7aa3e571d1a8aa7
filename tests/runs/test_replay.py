"""What a journal comes to, whatever a resume cut away."""

import json

import pytest

from tests.journals import JournalWriter
from tests.runs.told import begin, evaluate, resume, take_steps, writer_of
from workbench.evaluation.report import read_curves
from workbench.recipe.schema import Recipe
from workbench.runs import events, folder
from workbench.runs.curves.compared import RunCurves
from workbench.runs.events import (
    Paused,
    Resumed,
    RunEnded,
    RunResumed,
    RunStarted,
    Step,
    Unknown,
    decode,
    to_fields,
)
from workbench.runs.folder import RunFolder, summarise
from workbench.runs.history import read_history
from workbench.runs.journal import JournalReader, each_event
from workbench.runs.replay import Replay, fold
from workbench.storage.paths import Home


@pytest.fixture
def resumed(tmp_path):
    """A run killed after step 6, resumed from the checkpoint of step 3, and trained up to step 5 since."""
    run = begin(Home(tmp_path / "home"))
    with writer_of(run) as journal:
        evaluate(journal, 0, 3.0)
        take_steps(journal, range(1, 7), loss=3.0, seconds=0.5)
        evaluate(journal, 2, 2.0, best=True)
        evaluate(journal, 5, 1.0, best=True)
        journal.write("sample", step=6, replies=[{"prompt": "p", "reply": "r"}])
        resume(journal, 3)
        take_steps(journal, (4, 5), loss=2.0, seconds=0.25)
    return run


def test_the_summary_forgets_an_evaluation_of_after_the_checkpoint(resumed):
    summary = summarise(resumed)
    assert summary.step == 5
    assert summary.perplexity == {"base": pytest.approx(20.0855), "tuned": pytest.approx(7.3891)}


def test_the_report_forgets_points_of_after_the_checkpoint(resumed):
    curves = read_curves(resumed)
    assert list(curves.train) == [1, 2, 3, 4, 5]
    assert curves.train[4] == pytest.approx(2.0 - 0.04)
    assert curves.held_out == {0: 3.0, 2: 2.0}
    assert sum(curves.seconds.values()) == pytest.approx(3 * 0.5 + 2 * 0.25)


def test_the_script_ends_with_the_loss_that_the_run_ended_with(tmp_path):
    from workbench.export.script import _Outcome

    run = begin(Home(tmp_path / "home"))
    with writer_of(run) as journal:
        take_steps(journal, range(1, 9), loss=3.0)
        resume(journal, 3)
        take_steps(journal, (4, 5), loss=2.0)
        journal.write("run_ended", reason="stopped", step=5, kept_step=5)
    outcome = _Outcome(run)
    assert outcome.last_loss == pytest.approx(2.0 - 0.05)
    assert (outcome.stop_after, outcome.kept_step) == (5, None)


def test_best_samples_and_curves_follow_the_same_rule(resumed):
    curves = RunCurves(resumed)
    replay = curves.replay
    assert replay.best is not None
    assert (replay.best.step, replay.checkpoint, replay.samples) == (2, 3, [])
    assert [step for step, _ in curves.curve("step")] == [1, 2, 3, 4, 5]
    assert [type(one).__name__ for one in replay.deviations] == ["RunResumed"]


def test_the_losses_that_a_resume_will_train_again_are_known(resumed):
    history = read_history(resumed.journal, 3)
    assert history.evaluations == {0: 3.0, 2: 2.0}
    assert sorted(history.losses) == [4, 5, 6]
    assert history.losses[4] == pytest.approx(2.0 - 0.04)


def test_a_summary_that_was_kept_still_knows_what_to_forget(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_NOT_WORTH_CACHING", 0)
    run = begin(Home(tmp_path / "home"))
    with writer_of(run) as journal:
        evaluate(journal, 0, 3.0)
        take_steps(journal, range(1, 7))
        evaluate(journal, 6, 1.0)
    assert summarise(run).perplexity["tuned"] == pytest.approx(2.7183)
    assert (run.path / ".summary.json").is_file()
    with JournalWriter(run.journal) as journal:
        resume(journal, 3)
    assert summarise(run).perplexity == {"base": pytest.approx(20.0855)}


def test_fields_and_events_of_a_newer_version_are_kept(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = [
        {"seq": 0, "time": 1.0, "event": "step", "step": 1, "loss": 2.0, "entropy": 0.5},
        {"seq": 1, "time": 2.0, "event": "merged", "ranks": [1, 2]},
        {"seq": 2, "time": 3.0, "event": "step", "step": "two"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    step, merged, odd = each_event(path)
    assert isinstance(step, Step)
    assert (step.loss, step.more) == (2.0, {"entropy": 0.5})
    assert isinstance(merged, Unknown)
    assert isinstance(odd, Unknown)
    assert [to_fields(event) for event in (step, merged, odd)][1:] == lines[1:]
    assert to_fields(step)["entropy"] == 0.5
    replay = Replay.of(path)
    assert (replay.seq, replay.summary.step) == (2, 1)


def test_a_step_is_decoded_without_the_lenient_way(monkeypatch):
    monkeypatch.setattr(events, "_decode_leniently", lambda line: pytest.fail(f"lenient: {line!r}"))
    line = b'{"seq":1,"time":2.5,"event":"step","step":7,"loss":"nan","vram":{"peak":5},"learning_rate":1,"mfu":null}'
    event = decode(line)
    assert isinstance(event, Step)
    assert (event.step, event.loss, event.learning_rate) == (7, "nan", 1.0)


def test_a_version_1_journal_of_an_older_release_reads_as_before(tmp_path):
    folder = tmp_path / "old-01"
    folder.mkdir()
    run = RunFolder(folder)
    run.recipe_file.write_text(json.dumps(Recipe().as_dict()))
    lines = [
        {"seq": 0, "time": 1.0, "event": "run_started", "run": "old-01", "model": "m", "recipe": {}, "versions": {}},
        {"seq": 1, "time": 1.5, "event": "phase", "phase": "training", "fraction": None, "detail": "", "max_steps": 2},
        {"seq": 2, "time": 2.0, "event": "step", "step": 1, "max_steps": 2, "loss": 1.0, "mfu": None},
        {"seq": 3, "time": 3.0, "event": "run_ended", "reason": "finished", "adapter": None, "measured": None},
    ]
    run.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = summarise(run)
    assert (summary.state, summary.step, summary.max_steps, summary.model) == ("finished", 1, 2, "m")
    assert JournalReader(run.journal).read()[0].format == 1


def test_pauses_and_interruptions_are_no_time_of_a_run():
    """Also where the pause began in the part of the journal that a kept summary covers."""
    told = [
        RunStarted(time=1000.0),
        Step(time=1010.0, step=1),
        Paused(time=1020.0, step=1),
        Paused(time=1050.0, step=1, release=True),
        Resumed(time=1120.0, step=1),
        Step(time=1130.0, step=2),
        RunResumed(time=5130.0, step=2),
        Paused(time=5140.0, step=2),
        RunEnded(time=5240.0, reason="stopped"),
    ]
    whole = fold(told, Replay("run")).summary
    assert whole.seconds == 1020 - 1000 + 1130 - 1120 + 5140 - 5130
    for kept in range(len(told)):
        summary = fold(told[:kept], Replay("run")).summary
        assert fold(told[kept:], Replay("run", summary=summary)).summary.seconds == whole.seconds
