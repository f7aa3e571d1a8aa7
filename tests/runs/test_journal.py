"""The journal: whole lines or none, whatever happens between them."""

import json
import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from tests.journals import JournalWriter, read_events
from workbench.errors import WorkbenchError
from workbench.runs.journal import JournalReader, each_event, last_seq


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
    assert [e.step for e in reader.read()] == [1]
    assert reader.read() == []


def test_damaged_lines_are_counted_not_raised(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'not json\n[1]\n{"no":"event"}\n\xff\xfe\n{"seq":9,"event":"step","step":4}\n')
    reader = JournalReader(path)
    assert [e.step for e in reader.read()] == [4]
    assert reader.damaged == 4


def test_numbers_that_json_lacks_stay_readable(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("step", loss=float("nan"), vram={"peak": float("inf")})
    assert json.loads(path.read_text())["loss"] == "nan"


def test_rewards_that_are_not_finite_come_back_and_incomplete_ones_are_kept_aside(tmp_path):
    path = tmp_path / "journal.jsonl"
    rewards = {"chosen": float("nan"), "rejected": float("-inf"), "margin": 1.5, "accuracy": 0.5}
    with JournalWriter(path) as journal:
        journal.write("step", step=1, rewards=rewards)
    with path.open("a") as file:
        file.write('{"seq":1,"event":"step","step":2,"rewards":{"margin":1}}\n')
    whole, incomplete = JournalReader(path).read()
    assert whole.rewards == rewards | {"chosen": "nan", "rejected": "-inf"}
    assert (incomplete.rewards, incomplete.more) == (None, {"rewards": {"margin": 1}})


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


def test_a_writer_reads_the_end_of_a_long_journal_only(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    line = b'{"seq":%d,"time":1,"event":"step","step":1,"note":"' + b"x" * 900 + b'"}\n'
    path.write_bytes(b"".join(line % number for number in range(5000)))
    before = _bytes_read()
    with JournalWriter(path) as journal:
        journal.write("step", step=2)
        assert last_seq(path) == 5000
    assert _bytes_read() - before < path.stat().st_size / 10
    assert last_seq(path) == 5000


def _bytes_read():
    """Bytes that this process has read so far."""
    told = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in told if line.startswith("rchar"))


@pytest.mark.parametrize(
    "after",
    [b"", b"torn", b"\n" * 100_000, b"damaged\n" * 30_000 + b"torn", b"x" * 300_000],
    ids=["nothing", "torn", "empty", "damaged", "long"],
)
def test_numbers_go_on_whatever_stands_at_the_end(tmp_path, after):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        for step in range(1000):
            journal.write("step", step=step, note="y" * (200_000 if step == 998 else 100))
    with path.open("ab") as file:
        file.write(after)
    assert last_seq(path) == 999
    come = JournalReader.from_end(path)
    with JournalWriter(path) as journal:
        assert journal.has_events
        journal.write("step", step=1000)
        assert last_seq(path) == 1000
    assert [event["seq"] for event in read_events(path)] == list(range(1001))
    assert [event.seq for event in come.read()] == [1000]


def test_a_journal_without_an_event_begins_at_nought(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert last_seq(path) == -1
    path.write_bytes(b"damaged\n\ntorn")
    assert last_seq(path) == -1
    with JournalWriter(path) as journal:
        assert not journal.has_events
        journal.write("step", step=1)
        assert last_seq(path) == 0


def test_what_utf8_cannot_say_is_read_back(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("sample", reply="a\ud800b", big=2**80, tiny=5e-324)
    (event,) = read_events(path)
    assert (event["reply"], event["big"], event["tiny"]) == ("a\ud800b", 2**80, 5e-324)


def test_a_block_of_damage_does_not_end_the_reading(tmp_path):
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.write("step", step=1)
        with path.open("ab") as file:
            file.write((b"z" * 999 + b"\n") * 3000)
        journal.write("step", step=2)
    assert [event.step for event in each_event(path)] == [1, 2]
