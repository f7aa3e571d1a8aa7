"""Runs renamed and tagged: found by either name, and nothing that refers to them breaks."""

import json

import pytest

from tests.runs.told import begin, finished, writer_of
from workbench.errors import WorkbenchError
from workbench.runs.folder import find_run
from workbench.runs.label import Label, parse_tags, read_label
from workbench.runs.library.naming import rename_run, tag_run
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_a_run_is_found_by_its_name_its_id_and_their_beginnings(home):
    run, other = finished(home), finished(home)
    rename_run(home, run, "  Great  rank 64 ")
    for name in ("Great rank 64", "Great", run.id, str(run.path)):
        assert find_run(home, name).path == run.path
    assert (run.name, run.id, other.name) == ("Great rank 64", "run-01", "run-02")
    rename_run(home, run, "")
    assert run.name == "run-01"
    with pytest.raises(WorkbenchError, match="no run Great"):
        find_run(home, "Great")


def test_a_live_run_is_renamed_and_tagged_under_its_writer(home):
    run = begin(home)
    with writer_of(run) as journal:
        rename_run(home, run, "under way")
        tag_run(run, ["try"])
        journal.write("step", step=1, loss=1.0)
    assert run.label == Label("under way", ("try",))


def test_no_two_runs_have_one_name(home):
    run, other = finished(home), finished(home)
    rename_run(home, run, "best")
    for taken in ("best", "BEST", "run-01"):
        with pytest.raises(WorkbenchError, match=r"Another run, run-01, is already named"):
            rename_run(home, other, taken)
    rename_run(home, run, "run-03")
    assert begin(home).id == "run-04", "an id is never a name that somebody gave"
    rename_run(home, run, run.id)
    assert run.name == "run-01"


@pytest.mark.parametrize(
    "name", ["../../etc", "a/b", "run@40", "a=1", "a,b", "-rf", ".hidden", "x" * 65, "[red]x[/]", "\x1b[2J"]
)
def test_what_a_command_reads_otherwise_is_no_name(home, name):
    run = finished(home)
    with pytest.raises(WorkbenchError) as caught:
        rename_run(home, run, name)
    assert caught.value.kind == "label"
    assert run.name == run.id


def test_names_and_tags_of_other_scripts(home):
    run = finished(home)
    rename_run(home, run, "пират 海賊")
    tag_run(run, parse_tags("#älter, 海"))
    assert run.label == Label("пират 海賊", ("älter", "海"))
    assert find_run(home, "пират").path == run.path


def test_tags_come_and_go(home):
    run = finished(home)
    tag_run(run, ["keep", "lr-2e-4"])
    assert tag_run(run, ["Keep", "new"], ["LR-2e-4"]).tags == ("Keep", "new")
    with pytest.raises(WorkbenchError, match="at most 20"):
        tag_run(run, [f"t{number}" for number in range(30)])
    with pytest.raises(WorkbenchError, match="is not a valid tag"):
        parse_tags("ok =cmd()")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"name": 3, "tags": "x"}', b'{"name": "../a", "tags": ["\\u001b[2J", 7]}'],
)
def test_a_damaged_label_is_none(home, content):
    run = finished(home)
    (run.path / "label.json").write_bytes(content)
    assert read_label(run.path) == Label()
    assert rename_run(home, run, "mended").name == "mended"
    assert json.loads((run.path / "label.json").read_text())["name"] == "mended"
    assert not list(run.path.glob(".label*"))
