"""What nobody foresaw, raised in a command and in a run: a sentence that says whose fault it is, and a log."""

from pathlib import Path

import pytest

from tests.journals import read_events
from workbench.commands.app import run
from workbench.engine.training.thread import TrainingThread
from workbench.failures.unforeseen import KIND
from workbench.runs.folder import create_run
from workbench.storage.paths import Home

WORDS = "'NoneType' object has no attribute 'split'"


def _raising(*_: object, **__: object) -> None:
    raise AttributeError(WORDS)


def test_in_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from workbench.commands import presets

    monkeypatch.setenv("LORAWORKBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(presets, "describe_presets", _raising)
    with pytest.raises(SystemExit) as ended:
        run(["--home", str(tmp_path), "presets"])
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "loraworkbench failed while running `loraworkbench presets`. This is a fault of loraworkbench" in said
    assert f"AttributeError: {WORDS}" in said
    assert "loraworkbench doctor" in said
    assert "terminal.log" in said
    assert "Traceback" not in said
    assert "Traceback" in Home(tmp_path).terminal_log.read_text(encoding="utf-8")


def test_in_a_training_thread(tmp_path: Path, recipe, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from workbench.engine.training import training

    monkeypatch.setattr(training, "check_device", _raising)
    home = Home(tmp_path)
    folder = create_run(home, recipe)
    thread = TrainingThread(home, folder, recipe)
    thread.start()
    thread.join(240)
    assert thread.error is not None
    assert thread.error.kind == KIND
    (event,) = [event for event in read_events(folder.journal) if event["event"] == "error"]
    assert event["kind"] == KIND
    assert event["message"].startswith(f"loraworkbench failed while training run {folder.id}.")
    assert f"AttributeError: {WORDS}" in event["message"]
    assert str(folder.log) in event["cure"]
    assert "Traceback" in event["traceback"]
    assert "Traceback" in folder.log.read_text(encoding="utf-8")
