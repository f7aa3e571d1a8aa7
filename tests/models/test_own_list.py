"""The user's own list of models: what is valid is read, and each mistake is named by its line."""

from pathlib import Path

import pytest

from screens.models.rows import all_lists, matching
from workbench.models.own_list import OwnModel, own_list_file, own_models
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def write(home: Home, text: str) -> None:
    own_list_file(home).write_text(text, encoding="utf-8")


def test_ids_and_folders_are_read(home: Home, tmp_path: Path) -> None:
    assert own_models(home).models == ()
    (tmp_path / "ours").mkdir()
    write(home, f"# ours\n- my-org/support-7b\n- source: {tmp_path}/ours\n  note: our own base\n")
    found = own_models(home)
    assert found.mistakes == ()
    assert found.models == (OwnModel("my-org/support-7b", 2), OwnModel(f"{tmp_path}/ours", 3, "our own base"))
    write(home, "")
    assert own_models(home).models == ()


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("my-org/one", 1, "expected a list"),
        ("- a/b\n- [c/d]", 2, "expected a hub id or a path"),
        ("- a/b\n- source: c/d\n  licence: mit", 3, "'licence' is unknown"),
        ("- a/b\n- note: only", 2, "source is missing"),
        ("- a/b\n- source: [x]", 2, "source must be text"),
        ("- a/b\n- source: c/d\n  source: e/f", 3, "given twice"),
        ("- a/b\n\n- ~/no/such/folder", 3, "there is nothing at"),
        ("- a/b\n- not an id", 2, "neither a hub id"),
        ("- a/b\n- A/B", 2, "already in line 1"),
        ("- a/b\n- ''", 2, "empty"),
        ("- a/b\n- {", 2, "not valid YAML"),
    ],
)
def test_a_mistake_is_named_by_its_line(home: Home, text: str, line: int, what: str) -> None:
    write(home, text)
    (mistake,) = own_models(home).mistakes
    assert mistake.startswith(f"models.yaml, line {line}: ")
    assert what in mistake


def test_what_is_no_text_is_a_mistake(home: Home) -> None:
    own_list_file(home).write_bytes(b"- a/b\n- \xff\n")
    assert own_models(home).mistakes == ("models.yaml, line 2: this is not UTF-8 text.",)


def test_the_models_tab_lists_them_before_the_catalog(home: Home) -> None:
    write(home, "- my-org/support-7b\n- source: Qwen/Qwen3-8B\n  note: ours\n- {}\n")
    lists = all_lists(home)
    assert [row.source for row in lists.rows[1:3]] == ["my-org/support-7b", "Qwen/Qwen3-8B"]
    assert lists.rows[2].listed == "models.yaml, line 2: ours"
    assert lists.rows[2].parameters == 8_190_735_360
    assert len(lists.mistakes) == 1
    assert matching(lists.rows, "models.yaml ours")[0].source == "Qwen/Qwen3-8B"
