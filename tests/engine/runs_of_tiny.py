"""Runs of a tiny model under a test's hand."""

import hashlib
import time
from collections.abc import Callable

from tests.journals import Fields, read_events
from workbench.engine.training.thread import TrainingThread
from workbench.runs.folder import RunFolder, create_run


def begin(home, recipe, base=None) -> tuple[RunFolder, TrainingThread]:
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe, base)
    thread.start()
    return run, thread


def ended(thread: TrainingThread, seconds: float = 240) -> TrainingThread:
    """Wait for a run's end, which must come by itself and without an error."""
    thread.join(seconds)
    assert not thread.is_alive()
    assert thread.error is None, thread.error
    return thread


def resumed(home, run, base=None) -> TrainingThread:
    """A run that went on to its end."""
    thread = TrainingThread(home, run, run.recipe(), base, resume=True)
    thread.start()
    return ended(thread)


def curve(run: RunFolder) -> dict[int, float]:
    """Loss by step; a step that was trained again counts as it was the last time."""
    return {event["step"]: event["loss"] for event in events_of(run, "step")}


def events_of(run: RunFolder, kind: str) -> list[Fields]:
    return [event for event in read_events(run.journal) if event["event"] == kind]


def adapter_digest(run: RunFolder) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def wait_until(condition: Callable[[], object], run: RunFolder, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, read_events(run.journal)[-3:]
        time.sleep(0.01)


def wait_for_step(run: RunFolder, number: int) -> None:
    wait_until(lambda: max(curve(run), default=0) >= number, run)
