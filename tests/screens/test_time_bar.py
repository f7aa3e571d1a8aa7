"""Where a step's time goes, on Train: in words and as a bar, and not at all where the journal does not tell."""

from itertools import groupby
from pathlib import Path

import pytest

from screens.train.time_bar import TimeBar
from screens.widgets.glyphs import GLYPHS
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from workbench.units import step_time

PARTS = {"data": 0.05, "forward": 1.55, "backward": 3.0, "optimizer": 0.3, "other": 0.1}


async def trained(screen: Opened, *, steps: int = 3, **told: object) -> TimeBar:
    """Train, with a run that made some steps of five seconds."""
    await screen.tab("train")
    await screen.press("enter")
    await screen.until(lambda: screen.engine.run is not None, "a run")
    screen.engine.phase("preparing", compute_dtype="bfloat16", peak_flops=989.4e12, no_peak="")
    for step in range(1, steps + 1):
        screen.engine.step(step, 2.0, seconds=5.0, **told)
    await screen.until(lambda: f"step {steps}/100" in screen.words, "the steps")
    return screen.app.query_one(TimeBar)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["120x40", "80x24"])
async def test_parts_utilisation_and_padding_are_in_view(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(tmp_path, size=size) as screen:
        bar = await trained(screen, parts=PARTS, padding=0.034, flops=4.056e14, mfu=0.41, hfu=0.55)
        await screen.until(lambda: "step 5.00 s" in screen.words, "the time of a step")
        for words in ("data 1%", "forward 31%", "backward 60%", "optimizer 6%", "other 2%", "MFU 41%", "padding 3%"):
            await screen.sees(words)
        assert bar.size.height == (2 if size == WIDE else 1)
        assert all(strip.cell_length <= bar.size.width for strip in bar.paint(*bar.size))
        if size == WIDE:
            await screen.sees("989 TFLOP/s")
            await screen.sees("HFU")


async def test_the_bar_is_as_long_as_its_parts(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        bar = await trained(screen, parts=PARTS)
        line, _ = bar.paint(80, 2)
        inside = line.text.partition(GLYPHS.left)[2].rpartition(GLYPHS.right)[0]
        assert line.cell_length == 80
        first, second, third = GLYPHS.terms
        assert [glyph for glyph, _ in groupby(inside)] == [first, second, third, first, second]
        assert inside.count(third) == pytest.approx(0.6 * len(inside), abs=1)


async def test_a_device_without_a_known_peak_shows_what_was_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        await trained(screen, parts=PARTS, padding=0.0, flops=41_000_000_000, mfu=None)
        await screen.sees("GFLOP/s 41")
        assert "MFU" not in screen.words


async def test_a_journal_of_old_shows_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as screen:
        bar = await trained(screen)
        assert not bar.display
        assert "optimizer" not in screen.words
        assert "MFU" not in screen.words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0432, "43.2 ms"), (2.314, "2.31 s"), (12.34, "12.3 s"), (123.4, "123 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert step_time(seconds) == words
