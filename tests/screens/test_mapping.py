"""Columns mapped by hand on the Data tab, the first record as it will be trained on."""

from pathlib import Path

from textual.content import Content
from textual.widgets import Static

from screens.data.mapping import assigned, part_of, stepped
from screens.data.mapping_dialog import MappingDialog
from screens.data.record_view import TRAINED, RecordView
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import ScriptedEngine
from tests.screens.test_data_pane import jsonl
from workbench.engine.daemon.sources import Sources
from workbench.storage.paths import Home

NOTES = "asked twice a day at the [b]harbour[/b]"
RECORDS = [{"title": "Why do ships float?", "body": f"They push water aside, {n}.", "notes": NOTES} for n in range(3)]


async def mapping_dialog(screen: Opened) -> MappingDialog:
    await screen.press("m")
    await screen.until(lambda: isinstance(screen.app.screen, MappingDialog), "the dialog")
    dialog = screen.app.screen
    assert isinstance(dialog, MappingDialog)
    return dialog


def trained_text(dialog: MappingDialog) -> str:
    content = dialog.query_one(RecordView).query_one(Static).content
    assert isinstance(content, Content)
    return "".join(content.plain[span.start : span.end] for span in content.spans if str(span.style) == TRAINED)


async def test_a_mapping_shows_the_first_record_as_it_is_trained_on(tmp_path: Path, tiny_llama: Path) -> None:
    """The engine's own reading, with the model's template."""
    engine = ScriptedEngine(Home(tmp_path / "home"))
    engine.sources = Sources(engine.home)  # type: ignore[assignment]
    path = jsonl(tmp_path / "own.jsonl", RECORDS)
    async with opened(tmp_path / "home", engine=engine, size=NARROW) as screen:
        screen.app.set_recipe({"model.source": str(tiny_llama), "data.source": path})
        await screen.tab("data")
        await screen.sees("Press m to map the columns by hand.")
        dialog = await mapping_dialog(screen)
        await screen.sees("No column is mapped.")
        await screen.press("p")
        await screen.sees("neither prompt and reply")
        await screen.press("down", "r")
        await screen.until(lambda: "They push water aside, 0." in trained_text(dialog), "the response is trained")
        assert "Why do ships float?" not in trained_text(dialog)
        await screen.sees("not used: notes")
        await screen.press("down", "right")  # to the first part that is free
        await screen.until(lambda: "not used" not in screen.words, "the notes are used")
        await screen.sees("[b]harbour[/b]")
        assert screen.app.session.recipe.data.columns == {}
        await screen.press("minus", "enter")
        await screen.until(lambda: screen.app.screen is not dialog, "the dialog is closed")
        assert screen.app.session.recipe.data.columns == {"prompt": "title", "reply": "body"}
        await screen.sees("record 1 of 3")


async def test_escape_discards_and_what_detection_finds_is_not_written(tmp_path: Path) -> None:
    """Without a tokenizer the record is shown raw."""
    async with opened(tmp_path) as screen:
        await screen.tab("data")
        await screen.sees("record 1 of")
        dialog = await mapping_dialog(screen)
        await screen.sees("first record, raw")
        await screen.press("minus", "escape")
        await screen.until(lambda: screen.app.screen is not dialog, "the dialog is closed")
        assert screen.app.session.recipe.data.columns == {}
        dialog = await mapping_dialog(screen)
        await screen.press("minus", "a", "enter")
        await screen.until(lambda: screen.app.screen is not dialog, "the dialog is closed")
        assert screen.app.session.recipe.data.columns == {}


def test_a_part_has_one_column_and_a_column_one_part() -> None:
    mapping = assigned({}, "title", "prompt")
    mapping = assigned(mapping, "body", "prompt")
    assert mapping == {"prompt": "body"}
    mapping = assigned(mapping, "body", "reply")
    assert mapping == {"reply": "body"}
    assert assigned(mapping, "body", "") == {}
    assert part_of(stepped({}, "title", 1), "title") == "prompt"
    assert part_of(stepped({}, "title", -1), "title") == "text"
    assert stepped({"prompt": "title"}, "title", -1) == {}
    assert stepped({"prompt": "title"}, "body", 1) == {"prompt": "title", "input": "body"}
