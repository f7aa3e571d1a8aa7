"""Sampling a long journal: the events are the journal's, and it takes no longer than for a short one."""

from dataclasses import asdict

import pytest

from tests.journals import JournalWriter
from tests.runs import journals
from tests.runs.journals import KINDS, run_of
from workbench.runs import journal_sample
from workbench.runs.events import Step
from workbench.runs.folder import summarise
from workbench.runs.journal import JournalReader, each_event
from workbench.runs.journal_sample import JournalSample

# Figures that a partial summary has from the end alone: they are those of the exact one.
NEWEST = ("step", "max_steps", "loss", "tokens", "eta_seconds", "tokens_per_second", "started", "ended", "model")


@pytest.fixture(autouse=True)
def everything_is_long(monkeypatch):
    for name, small in (("LONG", 20_000), ("_HEAD", 2_000), ("_TAIL", 16_000), ("_AT_LEAST", 1_000)):
        monkeypatch.setattr(journal_sample, name, small)


def _in_order(seen: JournalSample, events):
    """Whether what was seen is part of the events, in their order, none twice."""
    places = {event.seq: place for place, event in enumerate(events)}
    found = [places[event.seq] for event in (*seen.head, *seen.middle, *seen.tail)]
    return found == sorted(set(found)) and all(
        event == events[places[event.seq]] for event in (*seen.head, *seen.middle, *seen.tail)
    )


@pytest.mark.parametrize("places", [0, 1, 7, 100, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_stands_in_the_journal(tmp_path, kind, places):
    journal = run_of(tmp_path, kind).journal
    events = list(each_event(journal))
    seen = journal_sample.sample_journal(journal, places)
    assert _in_order(seen, events)
    assert seen.head == events[: len(seen.head)]
    assert seen.tail == events[len(events) - len(seen.tail) :]
    assert seen.end == journal.read_bytes().rfind(b"\n") + 1
    if places == 5000 and kind is not journals.with_long_lines:
        # The first place lies in a line, whose beginning is not in sight.
        assert len(seen.head) + len(seen.middle) + len(seen.tail) >= len(events) - 1


def test_lines_come_from_all_over_it(tmp_path):
    journal = run_of(tmp_path, journals.interrupted).journal
    steps = [event.step for event in journal_sample.sample_journal(journal, 8).middle if isinstance(event, Step)]
    assert all(any(100 * part < step <= 100 * (part + 1) for step in steps) for part in range(8))
    assert len(steps) < 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_rough_summary_tells_nothing_but_what_is_so(tmp_path, kind):
    run = run_of(tmp_path, kind)
    partial = summarise(run, quick=True)
    assert not list(run.path.glob(".summary*"))
    exact = summarise(run)
    assert not exact.is_partial
    assert partial.is_partial == (run.journal.stat().st_size > journal_sample.LONG)
    if not partial.is_partial:
        assert partial == exact
        return
    assert {name: getattr(partial, name) for name in NEWEST} == {name: getattr(exact, name) for name in NEWEST}
    assert partial.is_state_unknown or (partial.state, partial.reason, partial.cure) == (
        exact.state,
        exact.reason,
        exact.cure,
    )
    assert partial.is_state_unknown or exact.state in ("finished", "failed", "stopped", "interrupted")
    assert partial.perplexity.items() <= exact.perplexity.items()
    assert partial.peak_vram <= exact.peak_vram


def test_who_writes_it_is_not_guessed(tmp_path):
    """The newest process stands in the middle, which was not read: the run may go on, and does."""
    run = run_of(tmp_path, journals.alive)
    assert summarise(run, quick=True).is_state_unknown
    assert summarise(run).state == "running"


def test_a_run_resumed_at_the_end_is_known_to_be_interrupted(tmp_path):
    partial = summarise(run_of(tmp_path, journals.resumed_at_the_end), quick=True)
    assert (partial.is_partial, partial.is_state_unknown, partial.state) == (True, False, "interrupted")


def test_after_it_was_read_once_it_is_exact_at_once(tmp_path):
    run = run_of(tmp_path, journals.resumed_and_finished)
    exact = summarise(run)
    assert asdict(summarise(run, quick=True)) == asdict(exact)


def test_a_journal_ten_times_as_long_is_seen_as_soon(tmp_path, monkeypatch):
    monkeypatch.undo()
    taken = []
    for copies in (1, 10):
        path = tmp_path / f"{copies}.jsonl"
        with JournalWriter(path) as journal:
            journals.interrupted(journal)
        path.write_bytes(path.read_bytes() * (60 * copies))
        read = []

        def counted(*arguments, read=read, real=journal_sample.os.pread):
            data = real(*arguments)
            read.append(len(data))
            return data

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal_sample.os, "pread", counted)
            journal_sample.sample_journal(path)
        taken.append(sum(read))
    assert taken[1] <= taken[0] * 1.05


def test_a_journal_that_grows_meanwhile_is_seen_up_to_a_whole_line(tmp_path):
    run = run_of(tmp_path, journals.interrupted)
    with run.journal.open("ab") as file:
        file.write(b'{"seq":9999,"time":1,"event":"st')
    seen = journal_sample.sample_journal(run.journal)
    with run.journal.open("ab") as file:
        file.write(b'ep","step":801}\n')
    (event,) = JournalReader(run.journal, seen.end).read()
    assert event.step == 801
