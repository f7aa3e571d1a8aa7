"""Names of runs for titles that are drawn often: cached, and checked for changes every second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content

from screens.widgets.plain import plain, shortened
from workbench.runs.label import read_label

if TYPE_CHECKING:
    from workbench.storage.paths import Home


class RunNames:
    """The names of the runs that are shown. A run may be renamed at any time, from another terminal too."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._names: dict[Path, str] = {}

    def of(self, run: str | Path) -> str:
        """Return the name of a run, given its id or folder; its id if it has no name."""
        folder = self._home.runs / run  # an absolute path stays what it is
        if folder not in self._names:
            self._names[folder] = read_label(folder).name
        return self._names[folder] or folder.name

    @property
    def any_asked_for(self) -> bool:
        """Whether any name is in use."""
        return bool(self._names)

    def look(self) -> bool:
        """Read the names again, which may take a while on a slow disk; returns whether one has changed."""
        before = dict(self._names)
        now = {folder: read_label(folder).name for folder in before}
        self._names.update(now)
        return now != before


def titled(name: str, run: str, *, most: int | None = None, style: str = "bold") -> Content:
    """Return a run's name, followed by its id dimmed if that differs: ``Low rank  pirate-03``.

    Args:
        most: cells that are free; the id is left out if it does not fit, and a longer name is cut.
        style: of the name.
    """
    name, run = plain(name), plain(run)
    beside = "" if run in ("", name) else f"  {run}"
    if most is not None and cell_len(name + beside) > most:
        beside = ""
        name = shortened(name, most)
    return Content.assemble((name, style), (beside, "$foreground 60%"))
