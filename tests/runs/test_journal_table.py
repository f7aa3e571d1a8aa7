"""A journal as CSV and Parquet: one row a step, streamed, and harmless in a spreadsheet."""

import csv
import json
import tracemalloc

import pyarrow.parquet
import pytest

from tests.runs.told import GIB, begin, evaluate, finished, resume, take_steps, writer_of
from workbench.errors import WorkbenchError
from workbench.runs.library.export_metrics import export_journal
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def rows_of(file):
    if file.suffix == ".parquet":
        return pyarrow.parquet.read_table(file).to_pylist()
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(params=[".csv", ".parquet"])
def file(request, tmp_path):
    return tmp_path / f"journal{request.param}"


def test_one_row_a_step_with_what_was_held_out_beside_it(home, file):
    run = finished(home, steps=3)
    assert export_journal(run, file) == 4
    rows = rows_of(file)
    assert [str(row["step"]) for row in rows] == ["0", "1", "2", "3"]
    first, last = rows[0], rows[-1]
    assert {float(first["eval_loss"]), float(last["eval_loss"])} == {3.0, 2.0}
    assert first["loss"] in ("", None)
    assert (float(last["loss"]), float(last["perplexity"]), int(last["tokens"])) == (2.97, 7.3891, 4500)
    assert int(last["vram_peak"]) == GIB + 3
    assert last["run"] == "run-01"
    assert float(last["time"]) > 1.7e9
    usual = "run step max_steps epoch time seconds loss learning_rate grad_norm token_accuracy tokens tokens_per_second"
    assert list(last)[:12] == usual.split()


def test_steps_that_were_trained_again_are_there_once(home, file):
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, range(1, 6), loss=3.0)
        evaluate(journal, 5, 9.0)
        resume(journal, 3)
        take_steps(journal, range(4, 7), loss=2.0)
        resume(journal, 4)
        take_steps(journal, [5], loss=1.0)
    assert export_journal(run, file) == 5
    assert [(int(row["step"]), float(row["loss"])) for row in rows_of(file)] == [
        (1, 2.99), (2, 2.98), (3, 2.97), (4, 1.96), (5, 0.95)
    ]  # fmt: skip
    assert not [row for row in rows_of(file) if row["eval_loss"] not in ("", None)]


def test_an_evaluation_between_two_points_has_its_own_row(home, file):
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, [10])
        evaluate(journal, 15, 2.5)
        take_steps(journal, [20])
    export_journal(run, file)
    assert [(int(row["step"]), row["eval_loss"] in ("", None)) for row in rows_of(file)] == [
        (10, True), (15, False), (20, True)
    ]  # fmt: skip


def test_fields_that_nobody_knew_of_and_numbers_that_are_none(home, file):
    run = begin(home)
    with writer_of(run) as journal:
        take_steps(journal, [1], loss=float("nan"), extra=1)
        take_steps(journal, [2], extra=2.5, host={"rss": 7, "deep": {"a": [1]}}, flag=True, tokens=2**70)
        take_steps(journal, [3], mixed="word", grad_norm=float("-inf"))
        take_steps(journal, [4], mixed=3)
    export_journal(run, file)
    rows = rows_of(file)
    assert str(rows[0]["loss"]) == "nan"
    assert str(rows[2]["grad_norm"]) == "-inf"
    assert [float(row["extra"]) for row in rows[:2]] == [1.0, 2.5]
    assert json.loads(rows[1]["host_deep"]) == {"a": [1]}
    assert str(rows[1]["flag"]).lower() == "true"
    assert [row["mixed"] for row in rows[2:]] == ["word", "3"]
    assert float(rows[1]["tokens"]) == 2.0**70


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula_to_a_spreadsheet(home, tmp_path, start):
    run = begin(home)
    text = f'{start}HYPERLINK("http://evil.example","x"),\n"y"'
    with writer_of(run) as journal:
        take_steps(journal, [1], note=text, **{f"{start}name": text, "-5": "lone \ud800"})
    export_journal(run, tmp_path / "a.csv")
    (row,) = rows_of(tmp_path / "a.csv")
    assert row["note"] == row[f"'{start}name"] == f"'{text}"
    assert "\\ud800" in row["'-5"]
    assert not [cell for cell in (*row, *row.values()) if cell.startswith((*"=+@\t\r", "-"))]
    # A program reads what was written; only spreadsheets need the sign.
    export_journal(run, tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet")[0]["note"] == text


def test_mistakes_are_sentences_and_leave_nothing(home, tmp_path):
    run = finished(home)
    (tmp_path / "there.csv").write_text("mine")
    for name, words in (
        ("table.xlsx", "no supported file type"),
        ("no/where.csv", "No such folder"),
        ("there.csv", "already exists"),
    ):
        with pytest.raises(WorkbenchError, match=words):
            export_journal(run, tmp_path / name)
    assert (tmp_path / "there.csv").read_text() == "mine"
    export_journal(run, tmp_path / "there.csv", replace=True)
    assert rows_of(tmp_path / "there.csv")
    with pytest.raises(WorkbenchError, match="no journal"):
        export_journal(begin(home), tmp_path / "new.csv")
    assert not list(tmp_path.glob(".*partial"))


def test_a_run_that_has_only_begun_gives_an_empty_table(home, file):
    run = begin(home)
    writer_of(run).close()
    assert export_journal(run, file) == 0
    assert rows_of(file) == []


def test_a_long_journal_is_never_held_as_a_whole(home, tmp_path):
    peaks = []
    for steps in (10_000, 30_000):
        run = begin(home)
        with writer_of(run) as journal:
            take_steps(journal, [1])
        *head, step = run.journal.read_text().splitlines(keepends=True)
        line = json.loads(step)
        more = (json.dumps(line | {"seq": line["seq"] + n, "step": 1 + n}) + "\n" for n in range(steps))
        run.journal.write_text("".join([*head, *more]))
        told = []
        tracemalloc.start()
        assert export_journal(run, tmp_path / f"{steps}.parquet", report=told.append) == steps
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert told == sorted(told)
        assert told[-1] == 1.0
    assert peaks[1] < 1.2 * peaks[0]
