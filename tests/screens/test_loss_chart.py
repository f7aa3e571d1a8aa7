"""The chart as a widget, and that only what changed goes over the wire."""

from time import monotonic

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from screens.charts.legend import Curve
from screens.charts.loss_chart import LossChart
from screens.widgets.glyphs import ASCII, UNICODE, Glyphs
from workbench.runs.curves.series import Series


class ChartApp(App[None]):
    def __init__(self, chart: LossChart) -> None:
        super().__init__()
        self.chart = chart

    def compose(self) -> ComposeResult:
        yield self.chart


def lines(chart: LossChart) -> list[str]:
    return [strip.text.rstrip() for strip in chart.paint(*chart.size)]


def falling(count: int) -> Series:
    return Series((x, 3.0 - 2.5 * x / 100) for x in range(1, count + 1))


async def test_it_shows_axes_legend_and_both_curves() -> None:
    chart = LossChart(glyphs=UNICODE)
    async with ChartApp(chart).run_test(size=(80, 20)) as pilot:
        evaluated = Series([(0, 3.1), (50, 1.8)])
        chart.show([Curve("train", falling(60)), Curve("eval", evaluated, marked=True)], end=100)
        await pilot.pause(0.01)
        shown = lines(chart)
        assert shown[0].endswith("━ train 1.500   ◆ eval 1.800")
        assert shown[-1].split() == ["0", "25", "50", "75", "100"]
        assert shown[1].startswith("3.5 ┤")
        assert shown[-2].startswith("1.5 ┤")
        assert sum(line.count("◆") for line in shown[1:]) == 2
        assert any(0x2800 < ord(character) <= 0x28FF for line in shown for character in line)


async def test_ascii_where_the_terminal_is_not_utf8() -> None:
    chart = LossChart(glyphs=ASCII)
    async with ChartApp(chart).run_test(size=(80, 20)) as pilot:
        chart.show([Curve("train", falling(60)), Curve("eval", Series([(50, 1.8)]), marked=True)])
        await pilot.pause(0.01)
        assert "".join(lines(chart)).isascii()
        assert "o" in "".join(lines(chart)[1:])


@pytest.mark.parametrize(("glyphs", "mark"), [(UNICODE, "●"), (ASCII, "o")])
async def test_one_step_can_be_seen(glyphs: Glyphs, mark: str) -> None:
    chart = LossChart(glyphs=glyphs)
    async with ChartApp(chart).run_test(size=(80, 20)) as pilot:
        chart.show([Curve("train", Series([(1, 4.28)]))], end=500)
        await pilot.pause(0.01)
        assert sum(line.count(mark) for line in lines(chart)[1:]) == 1
        chart.show([Curve("train", falling(60))], end=500)
        await pilot.pause(0.01)
        assert mark not in "".join(lines(chart)[1:])


async def test_a_label_is_no_markup_and_no_control_sequence() -> None:
    chart = LossChart(glyphs=UNICODE)
    async with ChartApp(chart).run_test(size=(80, 20)):
        chart.show([Curve("[red]a[/red]\x1b[2J", falling(3))])
        assert "[red]a[/red]␛[2J" in lines(chart)[0]


async def test_without_points_it_says_what_it_was_told() -> None:
    chart = LossChart()
    async with ChartApp(chart).run_test(size=(80, 20)):
        chart.show([Curve("train", Series())], placeholder="Loss appears after step 1.")
        assert any("Loss appears after step 1." in line for line in lines(chart))


async def test_one_more_point_repaints_a_few_lines_only() -> None:
    chart = LossChart(glyphs=UNICODE)
    async with ChartApp(chart).run_test(size=(120, 40)) as pilot:
        series = falling(60)
        chart.show([Curve("train", series)], end=100)
        await pilot.pause(0.3)
        repainted: list[Region] = []
        plain_refresh = chart.refresh
        chart.refresh = lambda *regions, **options: repainted.extend(regions) or plain_refresh(*regions, **options)  # type: ignore[method-assign]
        series.add(61, 3.0 - 2.5 * 0.61)
        chart._repaint()
        assert 1 <= len(repainted) <= 4
        assert all(region.height == 1 for region in repainted)


async def test_a_flood_of_changes_is_drawn_a_few_times_a_second() -> None:
    chart = LossChart(glyphs=UNICODE)
    async with ChartApp(chart).run_test(size=(80, 24)) as pilot:
        series = falling(2)
        chart.show([Curve("train", series)], end=100)
        await pilot.pause(0.05)
        painted = 0
        plain_paint = chart.paint

        def counted(width: int, height: int) -> object:
            nonlocal painted
            painted += 1
            return plain_paint(width, height)

        chart.paint = counted  # type: ignore[assignment,method-assign]
        started = monotonic()
        for x in range(3, 90):
            series.add(x, 3.0)
            chart.changed()
            await pilot.pause(0.005)
        took = monotonic() - started
        assert painted <= 1 + took * LossChart.REDRAWS_A_SECOND
        for _ in range(400):
            if painted:
                break
            await pilot.pause(0.01)
        assert painted


async def test_a_hidden_chart_is_not_painted_and_catches_up() -> None:
    chart = LossChart(glyphs=UNICODE)
    async with ChartApp(chart).run_test(size=(80, 24)) as pilot:
        series = falling(2)
        chart.show([Curve("train", series)], end=100)
        await pilot.pause(0.05)
        chart.display = False
        await pilot.pause(0.05)
        painted: list[int] = []
        plain_paint = chart.paint
        chart.paint = lambda width, height: painted.append(1) or plain_paint(width, height)  # type: ignore[assignment,method-assign]
        series.add(3, 2.5)
        chart.changed()
        await pilot.pause(0.3)
        assert not painted
        chart.display = True
        await pilot.pause(0.05)
        assert painted
