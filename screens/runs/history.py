"""The history as it lies on disk: read anew where something has changed, off the event loop, a few runs at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.runs.folder import RunFolder, all_runs, summarise
from workbench.runs.library.listing import ListedRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from workbench.storage.paths import Home

# Runs summed up in one go before their lines are shown: the first screenful, then more at a time, for the table paints
# itself anew for each batch.
_FIRST_BATCH = 30
_BATCH = 120

Mark = tuple[int, ...]


class Found:
    """The runs there are, newest first, and those of them that are new or have changed."""

    def __init__(self, runs: list[RunFolder], known: dict[str, Mark]) -> None:
        self.runs = runs
        self.known = {run.id: _mark(run) for run in runs}
        self.changed = [run for run in runs if known.get(run.id) != self.known[run.id] or not self.known[run.id][0]]


def changed_runs(home: Home, known: dict[str, Mark]) -> Found:
    """What has changed since ``known`` was found."""
    return Found(all_runs(home), known)


def batches(runs: Sequence[RunFolder]) -> Iterator[Sequence[RunFolder]]:
    """A few at first, then more at a time."""
    yield runs[:_FIRST_BATCH]
    for start in range(_FIRST_BATCH, len(runs), _BATCH):
        yield runs[start : start + _BATCH]


def listed(runs: Sequence[RunFolder]) -> list[ListedRun]:
    """Sum these runs up; of a long journal so much as is seen at a glance."""
    return [ListedRun(run, summarise(run, quick=True), run.label) for run in runs]


def listed_exactly(run: RunFolder) -> ListedRun:
    """Sum a run up, however long that takes."""
    return ListedRun(run, summarise(run), run.label)


def _mark(run: RunFolder) -> Mark:
    """Sizes and times of journal and label. A journal is appended to only, so these tell whether it is to be read."""
    return *_size_and_time(run.journal), *_size_and_time(run.path / "label.json")


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
