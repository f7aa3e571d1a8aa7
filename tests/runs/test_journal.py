"""The journal: whole lines or none, whatever happens between them."""

import json
import os
import resource
import signal
import threading

import pytest

from workbench.errors import WorkbenchError
from workbench.runs.journal import JournalReader, JournalWriter, read_events


def test_events_come_back_in_order(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("run_started", model="m")
        journal.write("step", step=1, loss=2.5)
    events = read_events(path)
    assert [(e["seq"], e["event"]) for e in events] == [(0, "run_started"), (1, "step")]
    assert list(events[1])[:3] == ["seq", "time", "event"]
    assert events[1]["loss"] == 2.5


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_absent_and_writing_goes_on(tmp_path, cut):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("step", step=1)
        journal.write("step", step=2, note="x" * 100)
    os.truncate(path, path.stat().st_size - cut)
    assert [e["step"] for e in read_events(path)] == [1]
    with JournalWriter(path) as journal:
        journal.write("step", step=3)
    assert [(e["seq"], e["step"]) for e in read_events(path)] == [(0, 1), (1, 3)]


def test_a_reader_follows_and_never_sees_half_a_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    reader = JournalReader(path)
    assert reader.read() == []
    line = b'{"seq":0,"time":1,"event":"step","step":1}\n'
    path.write_bytes(line[:20])
    assert reader.read() == []
    path.write_bytes(line)
    assert [e["step"] for e in reader.read()] == [1]
    assert reader.read() == []


def test_damaged_lines_are_counted_not_raised(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'not json\n[1]\n{"no":"event"}\n\xff\xfe\n{"seq":9,"event":"step","step":4}\n')
    reader = JournalReader(path)
    assert [e["step"] for e in reader.read()] == [4]
    assert reader.damaged == 4


def test_numbers_that_json_lacks_stay_readable(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("step", loss=float("nan"), vram={"peak": float("inf")})
    assert json.loads(path.read_text())["loss"] == "nan"


def test_writers_in_several_threads_do_not_mix_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        threads = [
            threading.Thread(target=lambda: [journal.write("step", note="y" * 200) for _ in range(100)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [e["seq"] for e in read_events(path)] == list(range(400))


def test_a_full_disk_is_an_error_and_leaves_no_half_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    before_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with JournalWriter(path) as journal:
            journal.write("step", step=1)
            # A limit on the file's size tears a write in the middle, as a disk that fills up does.
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
            for _ in range(2):
                with pytest.raises(OSError, match=r"No space left|File too large"):
                    journal.write("step", step=2, note="x" * 100)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            journal.write("step", step=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before_handler)
    assert [(e["seq"], e["step"]) for e in read_events(path)] == [(0, 1), (1, 3)]


def test_a_journal_has_one_writer_at_a_time(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("step", step=1)
        with pytest.raises(WorkbenchError, match="Another process is writing"):
            JournalWriter(path)
        assert [event["step"] for event in read_events(path)] == [1]
    with JournalWriter(path) as journal:
        journal.write("step", step=2)
