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
    """The names of the runs that were asked for. Anybody may rename a run at any time, from another terminal too."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._names: dict[Path, str] = {}

    def of(self, run: str | Path) -> str:
        """The name of a run, by its id or folder; its id if it has no name."""
        folder = self._home.runs / run  # an absolute path stays what it is
        if folder not in self._names:
            self._names[folder] = read_label(folder).name
        return self._names[folder] or folder.name

    @property
    def any_asked_for(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._names)

    def look(self) -> bool:
        """Read them again, which may take a while on a slow disk; returns whether one is another than before."""
        before = dict(self._names)
        now = {folder: read_label(folder).name for folder in before}
        self._names.update(now)
        return now != before


def titled(name: str, run: str, *, most: int | None = None, style: str = "bold") -> Content:
    """A run's name and, where it has one and that is another word, its id dimmed: ``Low rank  pirate-03``.

    Args:
        most: cells there are; the id is left out where it does not fit, and a longer name is cut.
        style: of the name.
    """
    name, run = plain(name), plain(run)
    beside = "" if run in ("", name) else f"  {run}"
    if most is not None and cell_len(name + beside) > most:
        beside = ""
        name = shortened(name, most)
    return Content.assemble((name, style), (beside, "$foreground 60%"))
