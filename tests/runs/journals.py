"""Journals of all kinds, written by the workbench's own writer."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.journals import JournalWriter
from workbench.runs.folder import RunFolder

_TERMS = {"weights": 6000, "saved_activations": 3000}
_PREDICTED = {"allocated_bytes": 9900, "reserved_bytes": 11_000, "terms": _TERMS, "method": "trace", "length": 64}
_MEASURED = {"allocated": 9999, "reserved": 12_000, "resting": 6000, "nvml": None}


def begin(journal: JournalWriter, event: str = "run_started", pid: int = 2**22 + 1, **fields: Any) -> None:
    """The first event of a stretch; by default its process is gone."""
    journal.write(event, model="tiny", pid=pid, process_started=1.0, **fields)


def steps(journal: JournalWriter, first: int, last: int, *, most: int = 1000, note: str = "") -> None:
    for step in range(first, last + 1):
        journal.write(
            "step",
            step=step,
            max_steps=most,
            loss=loss_at(step),
            tokens=100 * step,
            tokens_per_second=10.0 + step,
            seconds=0.5,
            vram={"peak": 5000 + step},
            eta_seconds=float(most - step),
            note=note,
        )


def evaluation(journal: JournalWriter, step: int, *, best: bool = True) -> None:
    journal.write("eval", step=step, loss=loss_at(step), perplexity=2 * loss_at(step), best=best)


def loss_at(step: int) -> float:
    return 1 + 2 / (1 + step / 100)


def _opening(journal: JournalWriter) -> None:
    begin(journal)
    journal.write("phase", phase="preparing", base="nf4", predicted=_PREDICTED)
    evaluation(journal, 0)
    journal.write("phase", phase="training", max_steps=1000)


def finished(journal: JournalWriter) -> None:
    _opening(journal)
    for start in range(1, 1000, 100):
        steps(journal, start, start + 99)
        evaluation(journal, start + 99)
        journal.write("checkpoint", step=start + 99, path="c")
    journal.write("run_ended", reason="finished", measured=_MEASURED)


def failed(journal: JournalWriter) -> None:
    _opening(journal)
    steps(journal, 1, 700)
    journal.write("error", kind="x", message="It broke.", cure="Mend it.", traceback="line\n" * 3000)
    journal.write("run_ended", reason="error")


def stopped(journal: JournalWriter) -> None:
    _opening(journal)
    steps(journal, 1, 640)
    journal.write("run_ended", reason="stopped", measured=None)


def interrupted(journal: JournalWriter) -> None:
    _opening(journal)
    steps(journal, 1, 800)


def alive(journal: JournalWriter) -> None:
    """Failed once in the middle, and goes on in this very process."""
    _opening(journal)
    steps(journal, 1, 500)
    journal.write("error", kind="x", message="It broke.", cure="Mend it.")
    journal.write("run_ended", reason="error")
    me = psutil.Process()
    journal.write("run_resumed", step=400, pid=os.getpid(), process_started=me.create_time())
    steps(journal, 401, 900)


def resumed_and_finished(journal: JournalWriter) -> None:
    interrupted(journal)
    begin(journal, "run_resumed", step=350)
    steps(journal, 351, 1000)
    evaluation(journal, 1000)
    journal.write("run_ended", reason="finished", measured=_MEASURED)


def resumed_at_the_end(journal: JournalWriter) -> None:
    failed(journal)
    begin(journal, "run_resumed", step=650)
    steps(journal, 651, 660)


def damaged(journal: JournalWriter) -> None:
    _opening(journal)
    steps(journal, 1, 300)
    with journal.path.open("ab") as file:
        file.write(b'{"seq":1,"event":"step","st\n\x00\x00\xff\n[]\n' + b"x" * 9000 + b"\n")
    steps(journal, 301, 900)
    journal.write("run_ended", reason="finished", measured=None)
    with journal.path.open("ab") as file:
        file.write(b"not whole")


def with_long_lines(journal: JournalWriter) -> None:
    _opening(journal)
    steps(journal, 1, 30, note="é" * 20_000)
    journal.write("sample", step=30, replies=[{"prompt": "p", "reply": "\ud800" + "r" * 300_000}])
    steps(journal, 31, 60, note="\n" * 20_000)
    evaluation(journal, 60)
    journal.write("run_ended", reason="early_stopping", measured=None)


def tiny(journal: JournalWriter) -> None:
    begin(journal)


def empty(_: JournalWriter) -> None:
    """Nothing was written."""


def loss_is_no_number(journal: JournalWriter) -> None:
    _opening(journal)
    steps(journal, 1, 500)
    journal.write("step", step=501, max_steps=1000, loss=float("nan"), tokens=1)
    journal.write("error", kind="x", message="No number.", cure="")
    journal.write("run_ended", reason="error")


KINDS: list[Callable[[JournalWriter], None]] = [
    *(finished, failed, stopped, interrupted, alive, resumed_and_finished, resumed_at_the_end),
    *(damaged, with_long_lines, tiny, empty, loss_is_no_number),
]


def run_of(folder: Path, kind: Callable[[JournalWriter], None]) -> RunFolder:
    """A run whose journal is of this kind."""
    run = RunFolder(folder / "run-01")
    run.path.mkdir()
    with JournalWriter(run.journal) as journal:
        kind(journal)
    return run
