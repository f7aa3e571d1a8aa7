"""Hints on a run's time: told once, of a window, and never of the first point."""

import json
from typing import Any

from workbench.runs.events import Step, decode
from workbench.runs.hints.loss import Hint
from workbench.runs.hints.times import WINDOW, TimeWatch
from workbench.runs.step_times import StepTimes


def hints(points: list[tuple[float, float]]) -> list[tuple[int, Hint]]:
    """What is told of steps of a second, given the share of it that went to data, and the padding."""
    watch = TimeWatch()
    seen = (
        (number, watch.add({"data": data, "forward": 1 - data}, padding))
        for number, (data, padding) in enumerate(points)
    )
    return [(number, hint) for number, hint in seen if hint is not None]


def test_a_run_that_computes_is_left_alone() -> None:
    assert hints([(0.05, 0.2)] * 100) == []


def test_waiting_for_data_is_told_once_a_window_is_full() -> None:
    ((number, hint),) = hints([(0.23, 0.0)] * 100)
    assert (number, hint.kind) == (WINDOW, "data")
    assert "23%" in hint.message


def test_the_first_point_does_not_count() -> None:
    assert hints([(0.99, 0.99), *[(0.05, 0.2)] * 100]) == []


def test_both_are_told_one_after_the_other() -> None:
    assert [(number, hint.kind) for number, hint in hints([(0.3, 0.5)] * 100)] == [
        (WINDOW, "data"),
        (WINDOW + 1, "padding"),
    ]


def test_what_begins_late_is_told_too() -> None:
    ((number, hint),) = hints([*[(0.0, 0.0)] * 60, *[(0.0, 0.8)] * 60])
    assert hint.kind == "padding"
    assert 60 < number < 60 + WINDOW
    assert "gradient_accumulation_steps" in hint.cure


def step(seconds: float, **more: Any) -> Step:
    return Step(step=1, seconds=seconds, parts={"data": 0.25 * seconds, "forward": 0.75 * seconds}, **more)


def test_means_are_weighted_by_time() -> None:
    times = StepTimes.of([step(1, mfu=0.4, padding=0.0), step(3, mfu=0.2, padding=0.4), step(4, mfu=None)])
    assert times.shares == {"data": 0.25, "forward": 0.75, "backward": 0, "optimizer": 0, "other": 0}
    assert times.mfu == (0.4 + 3 * 0.2) / 4
    assert times.padding == 3 * 0.4 / 4
    assert times.hfu is None


def test_journals_of_old_and_damaged_ones_tell_nothing() -> None:
    lines = [{"seconds": 1.0}, {"seconds": "x", "parts": {}}, {"seconds": 1.0, "parts": [1, 2]}, {}]
    steps = [decode(json.dumps({"event": "step", "step": 1, **line}).encode()) for line in lines]
    assert all(isinstance(step, Step) for step in steps)
    times = StepTimes.of(steps)
    assert (times.shares, times.flops, times.as_json()) == ({}, None, None)
