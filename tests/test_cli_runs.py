"""Runs by command: listed, compared, named, tagged, thrown away, brought back, exported."""

import csv
import json

import pytest

from tests.command_line import assert_a_sentence, call, facts
from tests.runs.told import begin, finished, take_steps, writer_of
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    finished(home, steps=10)
    finished(home, steps=20, loss=2.0, adapter={"r": 64})
    return home


def test_the_list_is_filtered_and_sorted_and_shows_names_and_tags(home):
    assert [run["id"] for run in facts(home, "runs")] == ["run-02", "run-01"]
    assert call(home, "runs", "rename", "run-01", "the small one").returncode == 0
    tagged = call(home, "runs", "tag", "the small", "pirate", "#lr-2e-4")
    assert "the small one: #pirate #lr-2e-4" in tagged.stdout
    assert [run["id"] for run in facts(home, "runs", "--sort", "-steps")] == ["run-01", "run-02"]
    (found,) = facts(home, "runs", "--filter", "#pirate")
    assert (found["id"], found["name"], found["tags"]) == ("run-01", "the small one", ["pirate", "lr-2e-4"])
    shown = call(home, "runs").stdout
    assert "the small one (run-01)" in shown
    assert "#pirate" in shown
    assert "None of the 2 runs matches [x]." in call(home, "runs", "--filter", "[x]").stdout
    assert_a_sentence(call(home, "runs", "--sort", "color"), "cannot be sorted by color", "perplexity")
    assert_a_sentence(call(home, "runs", "rename", "run-02", "the small one"), "run-01, is already named the small one")


def test_runs_are_compared_over_each_axis(home):
    (told,) = facts(home, "runs", "compare", "run-01", "run-02", "--by", "tokens")
    assert told["differences"] == {"adapter.r": ["16", "64"], "adapter.lora_alpha": ["32", "128"]}
    first, second = told["runs"]
    assert (first["id"], first["figures"]["eval_loss"], second["figures"]["step"]) == ("run-01", 2.0, 20)
    assert first["curve"]["train"][:2] == [[1500, 2.99], [3000, 2.98]]
    assert first["curve"]["eval"] == [[0, 3.0], [15000, 2.0]]
    shown = call(home, "runs", "compare", "run-01", "run-02", "--by", "time").stdout
    for words in ("adapter.r ", "best held-out loss", "2 at 10", "loss by time", "to 10.0 s"):
        assert words in shown
    assert_a_sentence(call(home, "runs", "compare", "run-01", "run-01"), "at least two runs", "Give two or more runs")


def test_a_run_goes_to_the_trash_and_comes_back_and_the_trash_is_emptied(home):
    assert_a_sentence(call(home, "runs", "delete", "run-01"), "Move run-01 to the trash?", "--yes")
    gone = call(home, "runs", "delete", "run-01", "--yes")
    assert "loraworkbench runs restore run-01" in gone.stdout
    assert [run["id"] for run in facts(home, "runs")] == ["run-02"]
    assert [one["id"] for one in facts(home, "runs", "trash")] == ["run-01"]
    assert "Restored run-01." in call(home, "runs", "restore", "run-01").stdout
    assert len(facts(home, "runs")) == 2
    call(home, "runs", "delete", "run-01", "run-02", "--yes")
    refused = call(home, "runs", "trash", "--empty")
    assert_a_sentence(refused, "Permanently delete 2 runs", "kB", "--yes")
    emptied = call(home, "runs", "trash", "--empty", "--yes")
    assert "Deleted 2 runs" in emptied.stdout
    assert "The trash is empty." in call(home, "runs", "trash").stdout
    assert_a_sentence(call(home, "runs", "restore", "run-01"), "no run run-01 in the trash", "The trash is empty")


def test_a_live_run_is_not_deleted(home):
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, [1])
        assert_a_sentence(call(home, "runs", "delete", run.id, "--yes"), "run-03 is live", "Stop it first")
        assert call(home, "runs", "rename", run.id, "under way").returncode == 0
        assert next(found for found in facts(home, "runs") if found["id"] == run.id)["name"] == "under way"


def test_a_journal_becomes_a_table(home, tmp_path):
    file = tmp_path / "run.csv"
    assert "11 rows" in call(home, "runs", "export", "run-01", file).stdout
    with file.open(newline="") as lines:
        assert [row["step"] for row in csv.DictReader(lines)] == [str(step) for step in range(11)]
    assert_a_sentence(call(home, "runs", "export", "run-01", file), "already exists")
    assert call(home, "runs", "export", "run-01", file, "--force").returncode == 0
    assert_a_sentence(call(home, "runs", "export", "run-01", tmp_path / "run.xlsx"), ".csv or .parquet")


def test_what_a_hostile_label_and_journal_hold_is_only_text(home):
    run = begin(home)
    with writer_of(run, model="\x1b[2J[red]x[/red]") as journal:
        take_steps(journal, [1])
    (run.path / "label.json").write_text(json.dumps({"name": "\x1b]0;owned\x07", "tags": ["[bold]"]}))
    for arguments in (("runs",), ("runs", "compare", "run-01", run.id)):
        done = call(home, *arguments)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout
