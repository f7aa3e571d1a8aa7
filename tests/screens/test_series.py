"""Curves in bounded memory, and how they are drawn."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from screens.charts.plot import BRAILLE, CLOUD, LEVELS, Frame, draw
from screens.charts.scale import nice_ticks, short_number, steps_shown, tick_labels
from workbench.runs.curves.series import CAPACITY, Series


def test_a_million_points_stay_in_bounded_memory_and_keep_their_extremes() -> None:
    series = Series((x, 1.0 + (99.0 if x == 777_777 else 0.0)) for x in range(1_000_000))
    assert len(series) <= CAPACITY
    assert series.count == 1_000_000
    assert series.last == (999_999, 1.0)
    columns = series.columns(0, 999_999, 100)
    assert sorted(columns) == list(range(100))
    assert {column for column, bucket in columns.items() if bucket.high == 100.0} == {77}
    assert all(bucket.low == 1.0 for bucket in columns.values())


@pytest.mark.parametrize("count", [1, 2, CAPACITY - 1, CAPACITY, CAPACITY + 1, 5 * CAPACITY + 3])
def test_buckets_keep_the_mean_of_what_they_hold(count: int) -> None:
    drawn = random.Random(count)
    values = [drawn.uniform(0, 3) for _ in range(count)]
    series = Series(enumerate(values))
    assert len(series) <= CAPACITY
    whole = series.columns(0, count, 1)[0]
    assert (whole.low, whole.high) == (min(values), max(values))
    # Equal buckets, but for the last one: their mean lies by the mean of all.
    assert whole.mean == pytest.approx(sum(values) / count, abs=0.01)


def test_a_value_that_is_no_number_is_left_out() -> None:
    series = Series([(1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0)])
    assert series.count == 2
    assert series.points() == [(1, 2.0), (4, 1.0)]


@pytest.mark.parametrize("cut", [0, 1, 1000, 2047, 2048, 5001, 9998, 9999, 20_000])
@pytest.mark.parametrize("count", [10, 3000, 10_000])
def test_what_comes_after_a_cut_is_drawn_anew(count: int, cut: int) -> None:
    series = Series((x, 5.0 - x / 10_000) for x in range(1, count + 1))
    series.cut(cut)
    stays = min(cut, count)
    assert series.count == stays
    assert series.last == (pytest.approx((stays, 5.0 - stays / 10_000), abs=0.002) if stays else None)
    assert all(x <= stays for x, _ in series.points())
    for x in range(stays + 1, count + 1):
        series.add(x, 1.0)
    assert series.count == count
    steps = [x for x, _ in series.points()]
    assert steps == sorted(steps)
    assert len(series) <= CAPACITY


@pytest.mark.parametrize("count", [3, CAPACITY, 3 * CAPACITY + 5])
def test_a_curve_is_moved_to_another_axis_point_by_point(count: int) -> None:
    steps = range(1, count + 1)
    loss, tokens = Series((x, 5.0 / x) for x in steps), Series((x, 1500.0 * x) for x in steps)
    moved = loss.along(tokens, 1000)
    assert [y for _, y in moved.points()] == [y for _, y in loss.points()]
    assert [x for x, _ in moved.points()] == pytest.approx([1.5 * x for x, _ in loss.points()])
    assert moved.last == (pytest.approx(1.5 * count), 5.0 / count)
    assert moved.columns(0, 1.5 * count, 1)[0] == loss.columns(0, count, 1)[0]
    held_out = Series([(0, 3.0), (2, 2.5), (count + 7, 2.0)]).along(tokens)
    assert [x for x, _ in held_out.points()] == pytest.approx([0, 3000, 1500 * count], rel=0.001)


def test_a_cut_leaves_nothing_of_what_came_after() -> None:
    series = Series([(1, 3.0), (2, 2.0), (3, 99.0)])
    series.cut(2)
    series.add(3, 1.0)
    assert series.points() == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert series.columns(0, 3, 1)[0].high == 3.0


def test_columns_leave_out_what_lies_outside() -> None:
    series = Series((x, float(x)) for x in range(11))
    assert series.columns(5, 6, 2) == {0: (5.0, 5.0, 5.0), 1: (6.0, 6.0, 6.0)}


FRAME = Frame(0, 3, 0.0, 1.0, width=4, height=3)


def picture(series: Series, frame: Frame = FRAME, dots=BRAILLE, mark: str = "") -> list[str]:
    rows = draw([(series, mark)], frame, dots)
    return ["".join(row.get(x, (" ", -1))[0] for x in range(frame.width)) for row in rows]


def test_a_falling_line_has_no_holes() -> None:
    rows = draw([(Series([(0, 1.0), (3, 0.0)]), "")], Frame(0, 3, 0, 1, 8, 4), BRAILLE)
    dots = {
        (2 * x + column, 4 * y + dot)
        for y, row in enumerate(rows)
        for x, (character, _) in row.items()
        for column in (0, 1)
        for dot in range(4)
        if (ord(character) - 0x2800) & BRAILLE.spans[column][dot][dot]
    }
    assert {x for x, _ in dots} == set(range(16))
    assert {y for _, y in dots} == set(range(16))


def test_ascii_needs_no_braille() -> None:
    assert picture(Series([(0, 1.0), (1, 0.5), (3, 0.0)]), dots=LEVELS) == ["'|  ", " |. ", "  '|"]


def test_marks_stand_where_the_points_are() -> None:
    assert picture(Series([(0, 1.0), (3, 0.0)]), mark="o")[0][0] == "o"
    assert picture(Series([(0, 1.0), (3, 0.0)]), mark="o")[2][3] == "o"


def test_scatter_is_drawn_apart_from_the_line() -> None:
    series = Series([(0, 1.0), (0.01, 0.0), (3, 0.5)])
    owners = {owner for row in draw([(series, "")], FRAME) for _, owner in row.values()}
    assert owners == {0, CLOUD}


def test_a_point_outside_the_frame_is_not_drawn() -> None:
    rows = draw([(Series([(0, 5.0)]), "x"), (Series([(0, -5.0)]), "")], FRAME)
    assert all(not row for row in rows)


@pytest.mark.parametrize("low", [-3.0, 0.0, 0.0123, 0.5, 1e-9, 1e6])
@pytest.mark.parametrize("span", [0.0, 1e-6, 0.07, 1.0, 2.6, 999.0])
@pytest.mark.parametrize("most", [2, 3, 5, 12])
def test_ticks_are_few_and_reach_around_the_data(low: float, span: float, most: int) -> None:
    ticks = nice_ticks(low, low + span, most)
    assert 2 <= len(ticks) <= max(3, most)
    slack = (ticks[1] - ticks[0]) * 1e-6
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack


@pytest.mark.parametrize("high", [5, 10, 30, 250, 1e6])
@pytest.mark.parametrize("most", [2, 3, 5, 12])
def test_whole_ticks_have_no_fraction(high: float, most: int) -> None:
    ticks = nice_ticks(0, high, most, whole=True)
    assert 2 <= len(ticks) <= max(3, most)
    assert ticks[-1] >= high
    assert all(tick % 1 == 0 for tick in ticks)


def test_the_axis_of_steps_moves_seldom() -> None:
    reaches = [steps_shown(last, 600) for last in range(1, 601)]
    assert sorted(set(reaches)) == [10, 20, 50, 100, 200, 500, 600]
    assert all(reach >= last for last, reach in enumerate(reaches, 1))
    assert steps_shown(30, 0) == 50


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (2e-4, "2e-4"), (1.29e-4, "1.3e-4"), (12.5, "12.5"), (1200, "1.2k"), (999.99, "1k"),
     (2_500_000, "2.5M"), (-0.5, "-0.5")],
)  # fmt: skip
def test_short_numbers(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([4.25, 4.275, 4.3], ["4.250", "4.275", "4.300"]),
        ([4.2, 4.25, 4.3, 4.35], ["4.20", "4.25", "4.30", "4.35"]),
        ([0, 0.5, 1.0, 1.5], ["0.0", "0.5", "1.0", "1.5"]),
        ([0, 1, 2], ["0", "1", "2"]),
        ([0, 5e-5, 1e-4, 1.5e-4], ["0.0e-4", "0.5e-4", "1.0e-4", "1.5e-4"]),
        ([10000, 12500, 15000], ["10.0k", "12.5k", "15.0k"]),
        ([-2, 0, 2], ["-2", "0", "2"]),
    ],
)
def test_ticks_are_rounded_evenly(ticks: list[float], labels: list[str]) -> None:
    assert tick_labels(ticks) == labels


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_labels_are_as_far_apart_as_their_ticks(low: float, span: float, most: int) -> None:
    ticks = nice_ticks(low, low + span, most)
    assume(ticks[1] - ticks[0] > 1e-6 * max(map(abs, ticks)))
    labels = tick_labels(ticks)
    assert len(set(labels)) == len(ticks)
    values = [float(label.rstrip("kMG")) for label in labels]
    apart = {round(after / (values[1] - values[0]), 3) for after in (b - a for a, b in pairwise(values))}
    assert apart == {1.0}
