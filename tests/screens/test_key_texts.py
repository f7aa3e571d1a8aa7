"""The keys that texts name: those in force, which the user may have changed in the settings."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import screens
from screens.shell.key_table import named_bindings
from screens.tabs import TABS
from screens.widgets.key_texts import key, keyed, use_keys
from tests.screens.piloting import NARROW, opened
from tests.screens.scripted import broken_off
from tests.screens.test_data_pane import jsonl
from tests.screens.test_runs_pane import history, trained

CHANGED = {
    "tab.models": "f11",
    "tab.train": "f12",
    "tab.runs": "ctrl+r",
    "tab.chat": "ctrl+l",
    "tab.data": "ctrl+d",
    "app.jobs": "ctrl+j",
    "app.help": "ctrl+h",
    "app.undo": "alt+z",
    "models.use": "ctrl+u",
    "train.start": "ctrl+s",
    "train.name": "ctrl+n",
    "train.log": "ctrl+o",
    "run.resume": "ctrl+g,g",
    "data.map": "ctrl+k",
    "chat.beside": "ctrl+b",
    "chat.switch": "ctrl+w",
    "runs.compare": "ctrl+e",
    "runs.resume": "ctrl+g",
}
# A single letter or digit after "press", or a function key, that a text names by itself.
NAMED = re.compile(r"\b[Pp]ress [A-Za-z0-9]\b|\bF(?:1|9|1[0-2])\b|\b[gl] (?:resume|restart|log)\b")
# Keys of dialogs and widgets, which are their own; texts about keys, and guides of the settings.
OWN = ("queue/dialog.py", "dialogs/settings_screen.py", "shell/key_table.py", "shell/app_keys.py")


@pytest.fixture(autouse=True)
def _own_keys() -> Iterator[None]:
    use_keys({})
    yield
    use_keys({})


def texts_of(tree: ast.AST) -> Iterator[ast.Constant]:
    """All texts of a module but its docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    } | {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def test_no_text_names_a_key_of_a_tab_by_itself() -> None:
    root = Path(screens.__path__[0])
    found, placed = [], set()
    for file in sorted(root.rglob("*.py")):
        for text in texts_of(ast.parse(file.read_text(encoding="utf-8"))):
            placed |= set(re.findall(r"\{([a-z]+\.[a-z_]+)\}", text.value))
            if (match := NAMED.search(text.value)) and not file.as_posix().endswith(OWN):
                found.append(f"{file.relative_to(root)}:{text.lineno} {match[0]}")
    assert not found
    assert placed
    known = {action for action, _ in named_bindings()}
    assert not placed - known


def test_a_key_is_written_as_sentences_write_it() -> None:
    use_keys({"run.stop": "ctrl+s", "run.pause": "f12,p", "runs.filter": "shift+f3", "tab.data": "A"})
    written = [key(one) for one in ("run.stop", "run.pause", "runs.filter", "tab.data", "train.start", "runs.mark")]
    assert written == ["Ctrl+S", "F12", "Shift+F3", "A", "Enter", "Space"]
    assert keyed("{run.stop} stops, {chart.next} and {chart.in}: {no place}") == "Ctrl+S stops, . and +: {no place}"
    with pytest.raises(KeyError):
        key("no.action")


async def test_empty_tabs_hints_help_and_the_start_card_name_the_users_keys(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"keys": CHANGED}))
    records = jsonl(tmp_path / "odd.jsonl", [{"a": "1", "b": "2", "c": "3"}] * 3)
    async with opened(tmp_path) as screen:
        await screen.sees("Ctrl+U, then F12, then Ctrl+S.")
        assert f"F11 {TABS[0].label}" in screen.words
        await screen.tab("train")
        await screen.sees("Ctrl+N changes it")
        await screen.press("ctrl+h")
        await screen.sees("Ctrl+G resumes")
        await screen.press("escape")
        screen.app.set_recipe({"data.source": "nowhere.jsonl"})
        await screen.sees("Ctrl+D Data")
        screen.app.set_recipe({"data.source": str(records)})
        await screen.tab("data")
        await screen.sees("Press Ctrl+K to map the columns by hand.")
        await screen.tab("chat")
        await screen.sees("F12 opens Train, where Ctrl+S starts")
        await screen.tab("runs")
        await screen.sees("Press F12, then Ctrl+S")
        await screen.press("f12")
        await screen.until(lambda: screen.app.pane_in_front and screen.app.pane_in_front.id == "train", "Train")


async def test_what_is_said_of_runs_names_the_users_keys(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"keys": CHANGED}))
    engine = trained(tmp_path, end="error")
    async with opened(tmp_path, engine=engine, tab="runs", size=NARROW) as screen:
        await history(screen, 1)
        await screen.sees("Ctrl+G resume")
        await screen.press("ctrl+e")
        await screen.is_told("then press Ctrl+E to compare")
        await screen.tab("train")
        await screen.sees("details in Runs (Ctrl+R)")


async def test_a_run_that_broke_off_is_told_with_the_users_keys(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"keys": CHANGED}))
    async with opened(tmp_path, engine=broken_off(tmp_path)) as screen:
        await screen.is_told("F12 opens Train, Ctrl+G resumes it.")
