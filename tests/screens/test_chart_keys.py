"""The chart: quantities, smoothing, cursor, zoom and log axis, on Train, on a run's page and in Compare."""

from pathlib import Path

import pytest

from screens.charts.legend import Curve
from screens.charts.loss_chart import LossChart
from screens.charts.scale import log_ticks
from screens.charts.view import SPANS, View
from screens.widgets.glyphs import ASCII
from tests.runs.told import finished
from tests.screens.piloting import NARROW, WIDE, opened
from tests.screens.scripted import ScriptedEngine
from tests.screens.test_compare import compared
from tests.screens.test_loss_chart import ChartApp, lines
from tests.screens.test_runs_pane import history
from workbench.recipe.schema import Recipe
from workbench.runs.curves.series import Series
from workbench.storage.paths import Home
from workbench.units import loss_text

GIB = 2**30


def test_a_view_zooms_around_its_cursor_and_follows_it() -> None:
    xs = [float(x) for x in range(1, 101)]
    view = View().after("left", 100, xs, 50)
    assert view.cursor == 100
    view = view.after("left", 100, xs, 50)
    assert view.cursor == 98, "a column is two steps wide"
    view = view.at(40.2, xs).after("in", 100, xs, 50)
    assert (view.cursor, view.window) == (40, (15, 65))
    assert view.after("right", 100, xs, 50).cursor == 41
    assert view.after("pan_right", 100, xs, 50).window == (27.5, 77.5)
    away = View(window=(10, 20), cursor=20).after("right", 100, xs, 50)
    assert away.cursor == 21
    assert away.window is not None
    assert away.window[0] <= 21 <= away.window[1]
    assert view.after("out", 100, xs, 50).window is None
    assert view.after("whole", 100, xs, 50) == View()
    for _ in SPANS:
        view = view.after("smoother", 100, xs, 50)
    assert view.span == SPANS[-1]
    for _ in range(20):
        view = view.after("in", 100, xs, 50)
    assert view.window is not None
    assert view.window[1] - view.window[0] == 4
    assert View().after("left", 0, [], 50) == View()


def test_smoothing_is_a_mean_of_the_past() -> None:
    noisy = Series((x, 2.0 + (-1) ** x) for x in range(1, 201))
    smooth = noisy.smoothed(50)
    assert smooth.points()[-1][1] == pytest.approx(2.0, abs=0.1)
    assert smooth.last == noisy.last
    assert noisy.smoothed(1).points() == noisy.points()
    assert [y for _, y in Series([(1, 3.0), (2, 3.0)]).smoothed(100).points()] == pytest.approx([3.0, 3.0])
    before = noisy.smoothed(10).points()
    noisy.add(201, 9.0)
    assert noisy.smoothed(10).points()[:-1] == before


def test_a_series_is_read_at_a_step() -> None:
    series = Series([(10, 1.0), (20, 2.0), (30, 3.0)])
    assert [series.at(x) for x in (1, 14, 16, 99)] == [1.0, 1.0, 2.0, 3.0]
    assert [series.at(x, before=True) for x in (1, 10, 19, 20, 99)] == [None, 1.0, 1.0, 2.0, 3.0]
    assert Series().at(1) is None


@pytest.mark.parametrize(("low", "high"), [(0.3, 4.0), (1e-6, 2e-4), (0.9, 1.1), (0.001, 5000.0)])
def test_log_ticks_reach_around_the_data(low: float, high: float) -> None:
    ticks = log_ticks(low, high, 8)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert ticks == sorted(set(ticks))


def test_a_loss_has_the_same_digits_everywhere() -> None:
    assert [loss_text(loss) for loss in (2.5, 0.41234, 12.0, 0.0123, 0)] == [
        "2.500",
        "0.412",
        "12.000",
        "0.0123",
        "0.000",
    ]


async def test_everything_stays_ascii_where_the_terminal_is() -> None:
    chart = LossChart(glyphs=ASCII)
    async with ChartApp(chart).run_test(size=(80, 20)) as pilot:
        chart.show([Curve("train", Series((x, 3.0 / x + 0.1 * (x % 2)) for x in range(1, 61)))], end=100)
        await pilot.pause(0.01)
        plain = lines(chart)
        for action in ("smoother", "smoother", "log", "left", "left", "in"):
            chart.act(action)
        assert "".join(lines(chart)).isascii()
        assert lines(chart)[0].startswith("step ")
        assert lines(chart) != plain
        chart.act("whole")
        assert lines(chart)[0].startswith("smoothed over 10, log axis")
        await pilot.click(chart, offset=(40, 10))
        assert lines(chart)[0].startswith("step ")


def _live(root: Path) -> ScriptedEngine:
    engine = ScriptedEngine(Home(root))
    engine.begin(Recipe(), max_steps=300)
    engine.phase("training", 0.0, max_steps=300)
    engine.evaluated(0, 3.1, 22.0)
    vram = {"allocated": 2 * GIB, "reserved": 3 * GIB, "peak": 2 * GIB}
    for step in range(1, 213):
        rewards = {"chosen": 0.01 * step, "rejected": 0.0, "margin": 0.01 * step, "accuracy": 0.75}
        engine.step(step, 3.0 - step / 100, vram=vram, rewards=rewards)
    engine.evaluated(212, 0.95, 2.6)
    return engine


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_the_cursor_reads_what_run_bar_and_legend_say(tmp_path: Path, size: tuple[int, int]) -> None:
    engine = _live(tmp_path)
    async with opened(tmp_path, size=size, engine=engine) as screen:
        await screen.tab("train")
        await screen.sees("train 0.880")
        await screen.sees("loss 0.880")
        await screen.press("left")
        await screen.sees("step 212 · train 0.880 · eval 0.950 · lr ")
        await screen.press("left", "left")
        await screen.until(lambda: "step 212 ·" not in screen.words and "eval 3.100" in screen.words, "an earlier step")
        await screen.press("0", "full_stop")
        await screen.sees("learning rate over steps")
        titles = ("grad norm", "tokens per second", "VRAM reserved (GiB)", "reward margin", "reward accuracy", "loss")
        for title in titles:
            await screen.press("full_stop")
            await screen.sees(f"{title} over steps")
        await screen.press("comma")
        await screen.sees("reward accuracy 0.75")


async def test_a_page_and_the_comparison_have_the_same_keys(tmp_path: Path) -> None:
    home = Home(tmp_path)
    finished(home, steps=40)
    finished(home, steps=60, loss=2.0)
    async with opened(tmp_path) as screen:
        await history(screen, 2)
        await screen.press("enter")
        await screen.sees("train 1.400")
        await screen.press("left")
        await screen.sees("step 60 · train 1.400 · eval 1.000")
        await screen.press("full_stop")
        await screen.sees("learning rate over steps")
        await screen.press("escape")
        await compared(screen, 2)
        await screen.press("left")
        await screen.sees("step 60 · A 1.400 · B 2.600")
        await screen.press("full_stop")
        await screen.sees("learning rate over steps")


async def test_a_large_terminal_has_four_charts_of_a_run(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(Recipe(), max_steps=100)
    engine.phase("training", 0.0, max_steps=100)
    for step in range(1, 21):
        engine.step(step, 3.0 - step / 10)
    async with opened(tmp_path, size=(200, 50), engine=engine) as screen:
        await screen.tab("train")
        for words in ("loss over steps", "learning rate over steps", "grad norm over steps", "tokens per second over"):
            await screen.sees(words)
        await screen.sees("grad norm 0.83")
        await screen.press("left")
        await screen.until(lambda: screen.words.count("step 20 ") >= 4, "a cursor in each")
    async with opened(tmp_path, size=WIDE, engine=engine) as screen:
        await screen.tab("train")
        await screen.sees("loss over steps")
        assert "grad norm over steps" not in screen.words
