"""Hints on a loss: of gradient descent that works, diverges, or stands still, seen through the noise of batches."""

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.runs.hints.loss import EARLY, PATIENCE, RECENT, Hint, LossWatch, hint_on


def descent(learning_rate: float, steps: int, *, noise: float = 0.1, seed: int = 0) -> Iterator[float]:
    """The losses of gradient descent on w² + 1 from w = 2 on, each with noise. It diverges above a rate of 1."""
    draw = random.Random(seed)
    weight = 2.0
    for _ in range(steps):
        yield weight**2 + 1 + draw.gauss(0, noise)
        weight -= learning_rate * 2 * weight


def hints(losses: Iterator[float] | list[float], learning_rate: float = 1e-4) -> list[tuple[int, Hint]]:
    """What is told of a course of losses, and after which step."""
    watch = LossWatch()
    seen = ((step, watch.add(loss, learning_rate)) for step, loss in enumerate(losses, 1))
    return [(step, hint) for step, hint in seen if hint is not None]


@pytest.mark.parametrize("learning_rate", [0.002, 0.01, 0.1, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_falls_is_left_alone(learning_rate: float, seed: int) -> None:
    assert hints(descent(learning_rate, 400, noise=0.3, seed=seed)) == []


def test_a_loss_that_rises_is_told_once() -> None:
    ((step, hint),) = hints(descent(1.01, 120))
    assert hint.kind == "diverging"
    assert EARLY + RECENT <= step < 60
    assert "learning_rate" in hint.cure
    assert "0.0001" in hint.cure


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_stands_still_is_told_after_a_fair_number_of_steps(seed: int) -> None:
    ((step, hint),) = hints(descent(1e-6, 3 * PATIENCE, noise=0.3, seed=seed))
    assert hint.kind == "flat"
    assert PATIENCE <= step < 2 * PATIENCE
    assert "Raise learning_rate" in hint.cure


def test_a_rate_that_is_high_already_is_not_to_be_raised() -> None:
    ((_, hint),) = hints([3.0, 3.1] * PATIENCE, learning_rate=5e-3)
    assert "Try another learning_rate" in hint.cure


def test_warming_up_is_not_standing_still() -> None:
    watch = LossWatch()
    steps = 400
    told = {
        step: watch.add(3.0 + 0.1 * (step % 2), 2e-4 * min(1.0, step / steps))
        for step in range(1, steps + 2 * PATIENCE)
    }
    first = next(step for step, hint in told.items() if hint)
    assert first > steps / 2


def test_nothing_left_to_learn_is_no_fault() -> None:
    assert hints([0.01, 0.02] * 100) == []
    assert hints([0.01] * 20 + [0.05] * 100) == []


def test_losses_that_are_no_numbers_are_left_to_the_engine() -> None:
    assert hints([math.nan, math.inf, -math.inf] * 100) == []
    ((_, hint),) = hints([math.nan, 3.0, 3.1] * PATIENCE)
    assert hint.kind == "flat"


def test_a_run_that_fell_and_then_broke_out() -> None:
    told = hints([*descent(0.05, 200), *(8.0 + 0.1 * (n % 3) for n in range(50))])
    assert [hint.kind for _, hint in told] == ["diverging"]


def test_too_few_losses_say_nothing() -> None:
    assert hint_on([1.0] * (EARLY - 1), [9.0] * RECENT, 1e-4, PATIENCE) is None
    assert hint_on([1.0] * EARLY, [9.0] * (RECENT - 1), 1e-4, PATIENCE) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(min_value=0.2, max_value=20), min_size=EARLY + RECENT + PATIENCE, max_size=300))
def test_never_more_than_one_of_a_kind(losses: list[float]) -> None:
    kinds = [hint.kind for _, hint in hints(losses)]
    assert len(kinds) == len(set(kinds))
