"""Runs told of elsewhere: real event files, a real W&B run without a network, and what is not installed."""

import os
import socket
import sqlite3
import threading
import time
from contextlib import closing
from importlib.util import find_spec

import pytest

from tests.engine.runs_of_tiny import begin, ended, events_of
from workbench.engine.daemon.engine import Engine
from workbench.engine.metrics import trackers as metrics_trackers
from workbench.engine.metrics.trackers import GuardedTracker, without_secrets
from workbench.errors import WorkbenchError
from workbench.planning.queue import Queue
from workbench.recipe import trackers
from workbench.recipe.schema import Recipe
from workbench.recipe.text import RecipeError, edit, from_yaml, parse, to_yaml
from workbench.recipe.trackers import REPORTERS, check_reporters, is_installed
from workbench.runs.folder import all_runs, summarise


def scalars(folder):
    """What TensorBoard's own reader finds in the event files of a folder: {name: {step: value}}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: {event.step: event.value for event in found.Scalars(name)} for name in found.Tags()["scalars"]}


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard: pip install tensorboard")
def test_tensorboard_has_the_figures_of_the_journal_in_the_runs_folder(home, recipe):
    run, thread = begin(home, edit(recipe, {"training.report_to": ["tensorboard"], "data.eval_fraction": 0.2}))
    ended(thread)
    figures = scalars(run.path / "tensorboard")
    told = {event["step"]: event["loss"] for event in events_of(run, "step")}
    assert figures["train/loss"] == pytest.approx(told, rel=1e-6)
    held_out = {event["step"]: event["loss"] for event in events_of(run, "eval")}
    assert set(held_out) == {0, 8}
    assert figures["eval/loss"] == pytest.approx(held_out, rel=1e-6)
    assert not [event for event in events_of(run, "warning") if event.get("kind") == "reporter"]


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard: pip install tensorboard")
def test_each_run_of_one_engine_has_its_own_files(home, recipe):
    engine = Engine(home)
    runs = []
    for _ in range(2):
        runs.append(engine.train(edit(recipe, {"training.max_steps": 2, "training.report_to": ["tensorboard"]})))
        while engine.is_busy:
            time.sleep(0.02)
    for run in runs:
        assert summarise(run).state == "finished"
        assert set(scalars(run.path / "tensorboard")["train/loss"]) == {1, 2}


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs wandb: pip install wandb")
@pytest.mark.parametrize("key", ["", "0123456789abcdef0123456789abcdef01234567"])
def test_wandb_without_key_or_network_neither_hangs_nor_ends_the_run(home, recipe, monkeypatch, tmp_path, key):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", key)
    started = time.monotonic()
    for _ in range(2):
        run, thread = begin(home, edit(recipe, {"training.report_to": ["wandb"]}))
        ended(thread, 120)
        assert list((run.path / "wandb").glob("offline-run-*/*.wandb"))
        warnings = [event["message"] for event in events_of(run, "warning") if event.get("kind") == "reporter"]
        assert len(warnings) == 1, warnings
        assert ("cannot be reached" if key else "there is no key") in warnings[0]
        if key:
            assert key not in run.journal.read_text() + run.recipe_file.read_text()
    assert time.monotonic() - started < 100


@pytest.mark.skipif(find_spec("trackio") is None, reason="needs trackio: pip install trackio")
def test_trackio_keeps_each_run_under_its_name(home, recipe, monkeypatch, tmp_path):
    # It reads this when it is imported, which nothing else here does.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for _ in range(2):
        run, thread = begin(home, edit(recipe, {"training.report_to": ["trackio"]}))
        ended(thread)
        assert not [event for event in events_of(run, "warning") if event.get("kind") == "reporter"]
    with closing(sqlite3.connect(tmp_path / "trackio" / "loraworkbench.db")) as database:
        kept = dict(database.execute("select run_name, count(*) from metrics group by run_name"))
    assert set(kept) == {"tiny-01", "tiny-02"}
    # Eight steps, and the held-out loss before and after them.
    assert min(kept.values()) >= 10


@pytest.mark.skipif(None in (find_spec("mlflow"), find_spec("sqlalchemy")), reason="needs mlflow: pip install mlflow")
def test_mlflow_without_a_server_writes_to_the_runs_folder(home, recipe, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    for _ in range(2):
        run, thread = begin(home, edit(recipe, {"training.report_to": ["mlflow"], "data.eval_fraction": 0.2}))
        ended(thread)
        assert not [event for event in events_of(run, "warning") if event.get("kind") == "reporter"]
        client = MlflowClient(f"sqlite:///{run.path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("loraworkbench")
        (found,) = client.search_runs([experiment.experiment_id])
        assert (found.info.run_name, found.info.status) == (run.id, "FINISHED")
        losses = {one.step: one.value for one in client.get_metric_history(found.info.run_id, "loss")}
        assert losses == pytest.approx({event["step"]: event["loss"] for event in events_of(run, "step")}, rel=1e-6)
        assert {one.step for one in client.get_metric_history(found.info.run_id, "eval_loss")} == {0, 8}


@pytest.mark.skipif(find_spec("swanlab") is None, reason="needs swanlab: pip install swanlab")
def test_swanlab_without_a_key_saves_its_log_and_asks_nothing(home, recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("SWANLAB_SAVE_DIR", str(tmp_path))
    for name in ("SWANLAB_MODE", "SWANLAB_API_KEY", "SWANLAB_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    run, thread = begin(home, edit(recipe, {"training.report_to": ["swanlab"]}))
    ended(thread, 120)
    (warning,) = [event["message"] for event in events_of(run, "warning") if event.get("kind") == "reporter"]
    assert "because there is no API key" in warning
    assert [file for file in (run.path / "swanlog").rglob("*") if file.is_file()]


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)


def test_what_is_not_installed_is_refused_before_there_is_a_run(home, recipe, nothing_installed):
    engine = Engine(home)
    wanted = edit(recipe, {"training.report_to": ["tensorboard", "trackio"]})
    with pytest.raises(WorkbenchError) as caught:
        engine.train(wanted)
    assert "contains tensorboard and trackio, which are not installed" in caught.value.message
    assert "pip install tensorboard trackio" in caught.value.cure
    assert not all_runs(home)
    assert not engine.is_busy
    assert not Queue(home).read().waiting
    check_reporters([])


def test_a_run_without_an_engine_says_it_too(home, recipe, nothing_installed):
    run, thread = begin(home, edit(recipe, {"training.report_to": ["wandb"]}))
    thread.join(120)
    assert thread.error.kind == "reporter_missing"
    assert not events_of(run, "step")


def test_a_reporter_that_fails_is_left_out_and_the_run_goes_on():
    told, warned = [], []

    class Fails:
        def on_log(self, *_, logs):
            told.append(logs)
            raise OSError("no room, and the token is hunter2hunter2")

    def warn(message, **fields):
        warned.append((message, fields))

    os.environ["SOME_TOKEN"] = "hunter2hunter2"
    try:
        guarded = GuardedTracker("wandb", Fails(), lambda: None, lambda: None, warn)
        for number in range(3):
            assert guarded.on_log(None, None, None, logs=number) is None
        guarded.close()
    finally:
        del os.environ["SOME_TOKEN"]
    assert told == [0]
    ((message, fields),) = warned
    assert message.startswith("Logging to wandb stopped: no room")
    assert "hunter2" not in message
    assert fields == {"kind": "reporter"}
    assert without_secrets("plain") == "plain"


def test_a_reporter_that_does_not_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(metrics_trackers, "_FINISH_SECONDS", 0.1)
    warned = []
    guarded = GuardedTracker(
        "wandb", type("Quiet", (), {"on_log": lambda *_, **__: None})(), lambda: None, threading.Event().wait,
        lambda message, **_: warned.append(message),
    )  # fmt: skip
    guarded.on_log(None, None, None, logs={})
    started = time.monotonic()
    guarded.close()
    assert time.monotonic() - started < 3
    assert "did not finish within" in warned[0]


def test_the_recipe_takes_those_there_are():
    recipe = from_yaml("training: {report_to: [wandb, tensorboard]}")
    assert recipe.training.report_to == ["wandb", "tensorboard"]
    assert from_yaml(to_yaml(recipe)) == recipe
    assert Recipe().training.report_to == []
    with pytest.raises(RecipeError, match="a list of tensorboard, wandb, trackio"):
        parse({"training": {"report_to": ["aim"]}})
    assert all(isinstance(is_installed(name), bool) for name in REPORTERS)
