"""Fields for paths: Tab completes, Ctrl+O opens a tree, sources used before are offered."""

import os
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from screens.forms.path_kinds import DATASET, FOLDER, MODEL
from screens.widgets.file_tree import FileTree, FileTreeScreen
from screens.widgets.path_completion import completions, folder_of
from screens.widgets.path_field import PathField
from tests.screens.piloting import NARROW, Opened, opened
from tests.screens.scripted import ScriptedEngine
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.storage.paths import Home

MARKUP = "[red]no[red].jsonl"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is the home folder too."""
    folder = tmp_path / "files"
    (folder / "data" / "inner").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("train.jsonl", "train-2.jsonl", "photo.png", MARKUP, "a\x1bb.jsonl", ".secret.jsonl"):
        (folder / "data" / name).write_text('{"question": "Q?", "answer": "A."}\n')
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.usefixtures("files")
def test_what_completes_a_text(files: Path) -> None:
    assert completions("da", DATASET) == ["data/"]
    assert completions("data/t", DATASET) == ["data/train-2.jsonl", "data/train.jsonl"]
    assert completions("data/", DATASET) == [
        f"data/{name}" for name in (MARKUP, "inner/", "train-2.jsonl", "train.jsonl")
    ]
    assert completions("data/.s", DATASET) == ["data/.secret.jsonl"]
    assert completions("data/p", DATASET) == ["data/photo.png"]
    assert completions("~", DATASET) == ["~/"]
    assert completions("~/da", DATASET) == ["~/data/"]
    assert completions("..", DATASET) == ["../"]
    assert completions(f"{files}/da", DATASET) == [f"{files}/data/"]
    assert completions("first-mate*0.5 + data/in", DATASET) == ["first-mate*0.5 + data/inner/"]
    assert completions("fi", DATASET, ["first-mate", "other"]) == ["first-mate"]
    assert completions("data/", FOLDER) == ["data/inner/"]
    assert completions("da", MODEL) == []
    assert [completions(text, DATASET) for text in ("", "nothing/here", "~nobody-at-all/x", "data/train.jsonl")] == [
        []
    ] * 4
    assert folder_of("data/gone/deeper", DATASET) == files / "data"
    assert folder_of("", DATASET) == files


async def source_field(screen: Opened, text: str) -> PathField:
    await screen.tab("data")
    await screen.press("enter")
    field = screen.app.focused
    assert isinstance(field, PathField)
    field.value = text
    field.cursor_position = len(text)
    return field


async def test_tab_completes_then_goes_through_the_completions_and_moves_on(files: Path, tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        field = await source_field(screen, "da")
        await screen.press("tab")
        await screen.until(lambda: field.value == "data/", "the folder")
        await screen.press("t", "tab")
        await screen.until(lambda: field.value == "data/train", "what all agree on")
        await screen.press("tab")
        await screen.until(lambda: field.value == "data/train-2.jsonl", "the first")
        await screen.press("tab")
        await screen.until(lambda: field.value == "data/train.jsonl", "the second")
        assert screen.app.session.recipe.data.source == "data/train.jsonl"
        await screen.press("backspace", "l", "tab")
        await screen.until(lambda: screen.app.focused is not field, "nothing is left to complete")
        await screen.sees("record 1 of 1")


async def test_a_source_that_a_run_used_is_completed(tmp_path: Path) -> None:
    engine = ScriptedEngine(Home(tmp_path))
    engine.begin(edit(Recipe(), {"data.source": "tatsu-lab/alpaca"}))
    engine.finish(step=5)
    async with opened(tmp_path, engine=engine) as screen:
        field = await source_field(screen, "tat")
        await screen.press("tab")
        await screen.until(lambda: field.value == "tatsu-lab/alpaca", "the dataset")
        await screen.press("ctrl+o")
        await screen.until(lambda: isinstance(screen.app.screen, FileTreeScreen), "the tree")
        await screen.sees("used before")
        screen.app.screen.query_one(OptionList).focus()
        await screen.press("down", "enter")
        await screen.until(lambda: screen.app.focused is field, "the field again")
        assert field.value == "tatsu-lab/alpaca"


async def test_a_tree_of_files_takes_names_as_they_are(files: Path, tmp_path: Path) -> None:
    async with opened(tmp_path / "home", size=NARROW) as screen:
        field = await source_field(screen, "data/train.jsonl")
        await screen.press("ctrl+o")
        await screen.until(lambda: isinstance(screen.app.screen, FileTreeScreen), "the tree")
        await screen.sees(MARKUP)
        await screen.sees("a␛b.jsonl")
        assert "photo.png" not in screen.words
        assert ".secret" not in screen.words
        await screen.press("full_stop")
        await screen.sees(".secret.jsonl")
        await screen.press("full_stop", "left")
        await screen.sees("files")
        await screen.until(lambda: screen.app.screen.query_one(FileTree).path == files, "the folder above")
        tree = screen.app.screen.query_one(FileTree)
        await screen.until(lambda: len(tree.root.children) == 1, "what is in it")
        await screen.press("down", "space")
        await screen.until(lambda: screen.app.focused is field, "the field again")
        assert field.value == str(files / "data")


async def test_a_file_is_taken_with_enter_and_escape_takes_none(files: Path, tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as screen:
        field = await source_field(screen, "first-mate + data/")
        await screen.press("ctrl+o")
        await screen.until(lambda: isinstance(screen.app.screen, FileTreeScreen), "the tree")
        tree = screen.app.screen.query_one(FileTree)
        await screen.until(lambda: len(tree.root.children) == 5, "what is in it")
        await screen.press("end", "enter")
        await screen.until(lambda: screen.app.focused is field, "the field again")
        assert field.value == f"first-mate + {files / 'data' / 'train.jsonl'}"
        await screen.press("ctrl+o")
        await screen.until(lambda: isinstance(screen.app.screen, FileTreeScreen), "the tree")
        await screen.press("escape")
        await screen.until(lambda: screen.app.focused is field, "the field again")
        assert field.value.endswith("train.jsonl")


async def test_the_search_of_models_completes_paths_only(files: Path, tmp_path: Path) -> None:
    os.rename("data", "qwen-folder")  # noqa: PTH104
    async with opened(tmp_path / "home") as screen:
        await screen.tab("models")
        await screen.press("slash", *"qwen")
        field = screen.app.focused
        assert isinstance(field, PathField)
        await screen.press("tab")
        await screen.until(lambda: screen.app.focused is not field, "the list")
        assert field.value == "qwen"
        await screen.press("slash", "home", "full_stop", "slash", "end", "tab")
        await screen.until(lambda: field.value == "./qwen-folder/", "the folder")
        assert isinstance(field, Input)
