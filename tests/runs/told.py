"""Runs with journals as the engine writes them, for tests that need no model."""

import os
from collections.abc import Iterable
from typing import Any

import psutil

from tests.journals import JournalWriter
from workbench.recipe.text import parse
from workbench.runs.folder import RunFolder, create_run
from workbench.storage.paths import Home

GIB = 2**30


def begin(home: Home, name: str = "run", **changes: Any) -> RunFolder:
    """A run that has not written anything yet."""
    return create_run(home, parse({"output": {"name": name}, **changes}))


def writer_of(run: RunFolder, model: str = "tiny/model") -> JournalWriter:
    """Its journal, begun by this process."""
    journal = JournalWriter(run.journal)
    journal.write("run_started", run=run.id, model=model, **_who())
    journal.write("phase", phase="preparing", trainable_parameters=4096, predicted={"allocated_bytes": 3 * GIB})
    return journal


def resume(journal: JournalWriter, step: int) -> None:
    journal.write("run_resumed", step=step, **_who())


def take_steps(journal: JournalWriter, steps: Iterable[int], *, loss: float = 3.0, **more: Any) -> None:
    for step in steps:
        fields = {"step": step, "max_steps": 100, "epoch": step / 100, "loss": loss - step / 100, "tokens": step * 1500}
        vram = {"allocated": GIB, "reserved": 2 * GIB, "peak": GIB + step}
        journal.write("step", **(fields | {"seconds": 0.5, "learning_rate": 2e-4, "vram": vram} | more))


def evaluate(journal: JournalWriter, step: int, loss: float, *, best: bool = False) -> None:
    journal.write("eval", step=step, loss=loss, perplexity=round(2.718281828**loss, 4), records=9, best=best)


def finished(home: Home, name: str = "run", *, steps: int = 10, loss: float = 3.0, **changes: Any) -> RunFolder:
    """A run that went to its end."""
    run = begin(home, name, **changes)
    with writer_of(run) as journal:
        evaluate(journal, 0, loss)
        take_steps(journal, range(1, steps + 1), loss=loss)
        evaluate(journal, steps, loss - 1, best=True)
        journal.write("run_ended", reason="finished", run=run.id, adapter=str(run.adapter))
    return run


def _who() -> dict[str, Any]:
    return {"pid": os.getpid(), "process_started": psutil.Process().create_time()}
