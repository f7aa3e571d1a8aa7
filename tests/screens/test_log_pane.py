"""The log below the curve: it moves as a whole at most once a second, and stands still while somebody reads it."""

from pathlib import Path

from textual import events
from textual.pilot import Pilot

from screens.widgets.log_pane import LINES_KEPT, LogPane
from tests.screens.piloting import Opened, opened


async def a_log(screen: Opened, path: Path, lines: int) -> LogPane:
    """The log pane of a run, open, with so many numbered lines in it and its end in sight."""
    path.write_text("".join(f"line {number}\n" for number in range(lines)))
    pane = LogPane()
    await screen.app.screen.mount(pane)
    pane.show(path)
    pane.focus()
    await screen.sees(f"line {lines - 1} ")
    return pane


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


async def test_many_new_lines_are_one_change(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        log = tmp_path / "log"
        pane = await a_log(screen, log, 5)
        painted: list[int] = []
        paint = pane.paint

        def counted(width: int, height: int) -> list[object]:
            painted.append(len(pane.lines))
            return paint(width, height)

        pane.paint = counted  # type: ignore[method-assign,assignment]
        for number in range(5, 55):
            append(log, f"line {number}")
            pane.read_on()
        await screen.sees("line 54 ")
        assert len(painted) <= 2, "each of fifty reads was painted"


async def test_only_columns_that_differ_are_painted(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        log = tmp_path / "log"
        pane = await a_log(screen, log, 100)
        painted: list[int] = []
        refresh = pane.refresh

        def counted(*regions, **how):  # type: ignore[no-untyped-def]
            painted.extend(region.width for region in regions)
            return refresh(*regions, **how)

        pane.refresh = counted  # type: ignore[method-assign]
        append(log, "line 100")
        pane.read_on()
        await screen.sees("line 100 ")
        assert painted
        assert max(painted) == len("line 100")


async def test_it_stands_still_while_one_looks_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        log = tmp_path / "log"
        pane = await a_log(screen, log, LINES_KEPT)
        await screen.press("home")
        await screen.sees("line 0 ")
        await screen.press("pagedown", "down", "up")
        first = pane.lines[pane.top]
        assert first == f"line {pane.size.height - 1}"
        append(log, *(f"new {number}" for number in range(10)))
        pane.read_on()
        assert pane.lines[pane.top] == first, "the lines that went away moved those that are read"
        await screen.sees(f"{first} ")
        await screen.press("end")
        await screen.sees("new 9 ")
        append(log, "new 10")
        pane.read_on()
        await screen.sees("new 10 ")


async def test_long_lines_are_read_to_their_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        log = tmp_path / "log"
        pane = await a_log(screen, log, 3)
        append(log, "x" * 150 + " the end")
        pane.read_on()
        await screen.sees("x" * 20)
        assert "the end" not in screen.words
        await screen.press(*["right"] * 10)
        await screen.sees("x the end")
        await screen.press(*["left"] * 10)
        await screen.sees("line 0 ")


async def test_lines_are_marked_and_copied_with_the_mouse(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        pane = await a_log(screen, tmp_path / "log", 4)
        pilot: Pilot[None] = screen.pilot
        await pilot.mouse_down(pane, offset=(0, 1))
        await pilot.hover(pane, offset=(6, 2))
        await pilot.mouse_up(pane, offset=(6, 2))
        await screen.until(lambda: pane.text_selection is not None, "a selection")
        assert screen.app.screen.get_selected_text() == "line 1\nline 2"


async def test_the_wheel_moves_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        pane = await a_log(screen, tmp_path / "log", 100)
        pane.styles.border = ("round", "white")
        await screen.pilot.pause()
        before = pane.top
        pane.post_message(wheel(events.MouseScrollUp, pane))
        await screen.sees(f"from line {before - 2};")
        pane.post_message(wheel(events.MouseScrollDown, pane))
        await screen.until(lambda: "from line" not in screen.words, "it follows again")


def wheel(kind: type[events.MouseEvent], pane: LogPane) -> events.MouseEvent:
    """A turn of the wheel over a widget."""
    return kind(pane, 1, 1, 0, 0, 0, shift=False, meta=False, ctrl=False)
