"""The summary of a journal is cached, and never trusted against the journal."""

import json
import os
from dataclasses import asdict

import pytest

from tests.journals import JournalWriter
from tests.runs import journals
from tests.runs.journals import KINDS, run_of
from workbench.runs import folder, summary_cache
from workbench.runs.folder import summarise
from workbench.runs.journal import JournalReader
from workbench.runs.replay import Replay


def _from_scratch(run):
    summary = Replay.of(run.journal).summary
    summary.settle()
    return asdict(summary)


@pytest.fixture
def bytes_read(monkeypatch):
    """Bytes that were read of journals since."""
    found = []

    class Counting(JournalReader):
        def read(self, max_bytes=None):
            before = self.offset
            events = super().read(max_bytes)
            found.append(self.offset - before)
            return events

    monkeypatch.setattr(folder, "JournalReader", Counting)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_the_whole_journal_says(tmp_path, kind):
    run = run_of(tmp_path, kind)
    for _ in range(3):
        assert asdict(summarise(run)) == _from_scratch(run)


def test_only_what_was_added_is_read(tmp_path, bytes_read):
    run = run_of(tmp_path, journals.interrupted)
    summarise(run)
    before = run.journal.stat().st_size
    assert sum(bytes_read) == before
    with JournalWriter(run.journal) as journal:
        journals.begin(journal, "run_resumed", step=700)
        journals.steps(journal, 701, 720)
    del bytes_read[:]
    assert asdict(summarise(run)) == _from_scratch(run)
    assert sum(bytes_read) == run.journal.stat().st_size - before


def test_it_can_be_read_by_nobody_who_cannot_read_the_journal(tmp_path):
    run = run_of(tmp_path, journals.finished)
    summarise(run)
    assert (run.path / ".summary.json").stat().st_mode & 0o777 == 0o600


def test_a_short_journal_needs_none(tmp_path):
    run = run_of(tmp_path, journals.tiny)
    summarise(run)
    assert [entry.name for entry in run.path.iterdir()] == ["journal.jsonl"]


def test_whether_a_run_lives_is_not_kept(tmp_path):
    run = run_of(tmp_path, journals.alive)
    assert summarise(run).state == "running"
    kept = run.path / ".summary.json"
    value = json.loads(kept.read_text())
    value["summary"]["writer"][1] -= 1000  # as if the process were gone
    kept.write_text(json.dumps(value))
    assert summarise(run).state == "interrupted"


def _another_journal(run):
    events = run.journal.read_bytes()
    run.journal.write_bytes(events.replace(b'"max_steps":1000', b'"max_steps":2000'))


def _shorter(run):
    os.truncate(run.journal, run.journal.stat().st_size // 2)


def _of_another_release(run):
    _change(run, form="0 of 0")


def _without_a_field(run):
    value = json.loads((run.path / ".summary.json").read_text())
    del value["summary"]["tokens"]
    _change(run, summary=value["summary"])


def _change(run, **fields):
    kept = run.path / ".summary.json"
    kept.write_text(json.dumps(json.loads(kept.read_text()) | fields))


SPOILED = [
    _another_journal,
    _shorter,
    _of_another_release,
    _without_a_field,
    lambda run: _change(run, offset=-5),
    lambda run: _change(run, offset="x"),
    lambda run: _change(run, offset=10**12),
    lambda run: _change(run, summary=[1]),
    lambda run: (run.path / ".summary.json").write_text('{"form'),
    lambda run: (run.path / ".summary.json").write_text("[]"),
]


@pytest.mark.parametrize("spoil", SPOILED)
def test_what_does_not_fit_the_journal_is_made_anew(tmp_path, spoil, bytes_read):
    run = run_of(tmp_path, journals.resumed_and_finished)
    summarise(run)
    spoil(run)
    del bytes_read[:]
    assert asdict(summarise(run)) == _from_scratch(run)
    assert sum(bytes_read) == run.journal.read_bytes().rfind(b"\n") + 1
    del bytes_read[:]
    assert asdict(summarise(run)) == _from_scratch(run)
    assert sum(bytes_read) == 0


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, monkeypatch):
    run = run_of(tmp_path, journals.finished)
    monkeypatch.setattr(summary_cache, "_cache_file", lambda journal: tmp_path / "nowhere" / "kept.json")
    assert summarise(run).state == "finished"
    assert not (tmp_path / "nowhere").exists()
