"""A record, a line of a log, a run's journal or a model's reply is data: it neither styles nor steers the terminal."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.widgets import Input

from screens.chat.reply_view import Reply
from tests.screens.piloting import NARROW, WIDE, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

CLEAR = "\x1b[2J\x1b[H"
TITLE = "\x1b]0;owned\x07"
CLIPBOARD = "\x1b]52;c;aGFja2Vk\x1b\\"
C1 = "\x9b31m\x9d0;x\x9c"
LINK = "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\"
BIDI = "\u202egpj.exe\u2066"
MARKUP = "[red]no[/red] [@click=app.quit]quit[/] [link=http://evil.example]x[/link] [/] [["
ENTITIES = "&#27;[2J &#x1b;]0;x&#7; &#155;31m"
HOSTILE = f"a{CLEAR}b{TITLE}c{CLIPBOARD}d{C1}e{LINK}f{BIDI}g {MARKUP} {ENTITIES} h\r\x08\x7f\x00i"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def segments(screen: Opened) -> Iterator[Segment]:
    for strip in screen.app.screen._compositor.render_strips():
        yield from strip


def assert_harmless(screen: Opened) -> None:
    """Nothing on screen can steer a terminal, and nothing there does something when it is clicked but our own keys."""
    for segment in segments(screen):
        assert not _CONTROL.search(segment.text), repr(segment.text)
        if segment.style is not None:
            assert segment.style.link is None
            action = str(segment.style.meta.get("@click", ""))
            assert "quit" not in action
            assert "evil" not in action


def places_of_each_style(screen: Opened, rows: range) -> list[tuple[int, int]]:
    """A place of each style in each widget."""
    places: dict[object, tuple[int, int]] = {}
    for y, strip in enumerate(screen.app.screen._compositor.render_strips()):
        x = 0
        for segment in strip:
            if y in rows and segment.cell_length:
                widget, _ = screen.app.screen.get_widget_at(x, y)
                places.setdefault((widget, segment.style), (x, y))
            x += segment.cell_length
    assert len(places) > 5
    return list(places.values())


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_hostile_reply(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(tmp_path, size=size) as screen:
        pane = await screen.tab("chat")
        prompt = pane.query_one("#prompt", Input)
        prompt.value = f"tell me {MARKUP}"
        prompt.focus()
        await screen.press("enter")
        await screen.until(lambda: screen.engine.backend.requests, "the engine is asked")
        engine = screen.engine
        for piece in (
            HOSTILE,
            f"\n\n# {HOSTILE}\n\n- {HOSTILE}\n\n> {HOSTILE}\n\n",
            f"[click](http://evil.example/{CLEAR}) ![picture{CLEAR}](http://evil.example/a.png) <http://evil.example>\n\n",
            f"<script>alert(1)</script> <b>bold</b>\n\n<div>{CLEAR}</div>\n\n",
            f"| a{CLEAR} | b |\n|---|---|\n| {MARKUP.replace('|', '')} | {ENTITIES} |\n\n",
            f"```python{CLEAR}\nprint('{HOSTILE}')\n```\n\n`{HOSTILE}`\n",
            # Sequences cut in two by the stream.
            "\x1b",
            "[2J\x1b]5",
            "2;c;aGk=\x07 the end",
        ):
            engine.say(piece)
        await screen.until(lambda: any(r.text.endswith("the end") for r in pane.query(Reply)), "the whole reply")
        engine.end()
        await screen.until(lambda: "42 tokens" in screen.words, "its figures")
        assert_harmless(screen)
        while (transcript := pane.query_one("Transcript")).scroll_y > 0:
            transcript.scroll_relative(y=-10, animate=False)
            await screen.pilot.pause()
            assert_harmless(screen)
        await screen.sees("[red]no[/red]")
        # A place of each style in each widget of the reply is clicked: nothing happens.
        for place in places_of_each_style(screen, range(3, size[1] - 4)):
            await screen.pilot.click(offset=place)
        assert screen.app.is_running
        assert screen.app.pane_in_front is pane
        assert screen.app.clipboard == ""


async def test_a_hostile_journal_and_log(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    run = engine.begin(Recipe(), max_steps=3)
    run.log.write_bytes(HOSTILE.encode() + b"\n" + b"\x9b2J raw \xff\n")
    engine.phase(HOSTILE, 0.5, HOSTILE, base=HOSTILE, compute_dtype=HOSTILE, counts={HOSTILE: 3})
    engine.write("warning", message=HOSTILE)
    engine.step(1, 1.0)
    async with opened(tmp_path, engine=engine) as screen:
        await screen.tab("train")
        await screen.press("l")
        await screen.until(lambda: "raw" in screen.words, "the log")
        await screen.until(lambda: "train 1" in screen.words, "the chart")
        assert_harmless(screen)
        engine.fail(HOSTILE, HOSTILE, HOSTILE)
        await screen.until(lambda: "The run failed" in screen.words, "the error")
        assert_harmless(screen)
        await screen.tab("runs")
        await screen.until(lambda: "run-01" in screen.words and "failed" in screen.words, "the history")
        assert_harmless(screen)
        assert engine.run is not None
        engine.run.recipe_file.write_text(f"# {MARKUP}\n# {CLEAR}{C1}\n")
        await screen.press("enter")
        await screen.until(lambda: "[red]no[/red]" in screen.words, "the recipe")
        assert_harmless(screen)


async def test_a_hostile_record_and_a_hostile_file_name(tmp_path: Path) -> None:
    import json

    path = tmp_path / "[red]name[_red].jsonl"
    path.write_text(json.dumps({"question": HOSTILE, "answer": HOSTILE}) + "\n")
    async with opened(tmp_path / "home") as screen:
        await screen.tab("data")
        screen.app.set_recipe({"data.source": str(path)})
        await screen.until(lambda: "record 1 of 1" in screen.words, "the record")
        await screen.sees("[red]name[_red].jsonl, line 1")
        await screen.sees("[red]no[/red]")
        assert_harmless(screen)
        screen.app.set_recipe({"data.source": f"no such {CLEAR}{MARKUP}"})
        await screen.until(lambda: "No such file or folder" in screen.words, "the message")
        assert_harmless(screen)


async def test_a_hostile_refusal(tmp_path: Path) -> None:
    from workbench.errors import WorkbenchError

    async with opened(tmp_path) as screen:
        await screen.tab("train")
        screen.engine.backend.trouble = WorkbenchError(HOSTILE, HOSTILE)
        await screen.press("enter")
        await screen.until(lambda: "Error" in screen.words, "the dialog")
        await screen.sees("[red]no[/red]")
        assert_harmless(screen)
