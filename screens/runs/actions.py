"""What the history is tidied with: names, tags, the trash and back, a journal written as a table."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screens.shell.dialogs import Choice, ChoiceDialog, LineDialog
from screens.widgets.line_painted import PacedPane
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError
from workbench.runs.label import checked_name, parse_tags
from workbench.runs.library.naming import rename_run, tag_run
from workbench.runs.library.trash import delete_run, restore_run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workbench.runs.folder import RunFolder
    from workbench.runs.library.listing import ListedRun

_NAMED_AT_MOST = 5


class RunActions(PacedPane):
    """The part of the pane that changes something on disk."""

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        self._deleted: list[list[str]] = []

    @property
    def selected(self) -> ListedRun | None:
        """The run that is open, else the one under the cursor."""
        raise NotImplementedError

    @property
    def subjects(self) -> Sequence[ListedRun]:
        """The marked runs; without a mark the selected one."""
        raise NotImplementedError

    async def read_again(self) -> None:
        """Something was changed on disk: show it."""
        raise NotImplementedError

    # -- names and tags -------------------------------------------------------------------------------------------

    def action_rename(self) -> None:
        """Give the selected run a name."""
        if (one := self.selected) is None:
            return

        def typed(name: str | None) -> None:
            if name is not None:
                self.workbench.attempt(self._rename(one.run, name))

        text = (
            f"Used wherever the run is shown or searched. The id and folder stay {one.run.id}. Leave "
            "empty to remove the name."
        )
        self.app.push_screen(LineDialog("Name of the run", text, one.label.name, check=_mistake(checked_name)), typed)

    async def _rename(self, run: RunFolder, name: str) -> None:
        await asyncio.to_thread(rename_run, self.session.home, run, name)
        await self.read_again()

    def action_tag(self) -> None:
        """Tag the marked runs, else the selected one."""
        subjects = self.subjects
        if not subjects:
            return

        def typed(line: str | None) -> None:
            if line is not None:
                self.workbench.attempt(self._tag(subjects, line))

        present = " ".join(dict.fromkeys(one.tags for one in subjects if one.tags)) or "no tags yet"
        text = f"{_names(subjects)}: {present}\nTags to add; prefix a tag with a minus to remove it."
        self.app.push_screen(LineDialog("Tags", text, placeholder="pirate -old", check=_mistake(_changes)), typed)

    async def _tag(self, subjects: Sequence[ListedRun], line: str) -> None:
        add, less = _changes(line)
        for one in subjects:
            await asyncio.to_thread(tag_run, one.run, add, less)
        await self.read_again()

    # -- the trash ------------------------------------------------------------------------------------------------

    def action_delete(self) -> None:
        """Throw the marked runs away, else the selected one."""
        subjects = self.subjects
        if not subjects:
            return

        def answered(answer: str | None) -> None:
            if answer == "delete":
                self.workbench.attempt(self._delete(subjects))

        elsewhere = [one.run for one in subjects if one.run.path.is_symlink()]
        text = "Moves the run to the trash. u or `loraworkbench runs restore` restores it."
        if elsewhere:
            text += f" Only the link of {', '.join(run.id for run in elsewhere)} moves; its folder stays in place."
        choices = (Choice("n", "Keep", "keep"), Choice("d", "Move to trash", "delete"))
        self.app.push_screen(ChoiceDialog(f"Delete {_names(subjects)}?", text, choices), answered)

    async def _delete(self, subjects: Sequence[ListedRun]) -> None:
        status = self.session.status
        gone: list[str] = []
        try:
            for one in subjects:
                live_run = status.run if status is not None else None
                await asyncio.to_thread(delete_run, self.session.home, one.run, live_run=live_run)
                gone.append(one.run.id)
        finally:
            if gone:
                self._deleted.append(gone)
                self.notify(f"Moved {', '.join(gone)} to the trash. u restores the last deletion.", markup=False)
                await self.read_again()

    @property
    def can_undelete(self) -> bool:
        """Whether something was deleted from here."""
        return bool(self._deleted)

    def action_undelete(self) -> None:
        """Bring back what was deleted last."""
        if self._deleted:
            self.workbench.attempt(self._undelete(self._deleted.pop()))

    async def _undelete(self, runs: list[str]) -> None:
        try:
            for run in runs:
                await asyncio.to_thread(restore_run, self.session.home, run)
        finally:
            await self.read_again()
        self.notify(f"Restored {', '.join(runs)}.", markup=False, timeout=3)

    # -- a table of the journal -----------------------------------------------------------------------------------

    def action_table(self) -> None:
        """Write the journal of the selected run as CSV or Parquet."""
        from workbench.runs.library.export_metrics import checked_target

        if (one := self.selected) is None:
            return

        def typed(file: str | None) -> None:
            if file is not None:
                self.workbench.attempt(self._write_table(one.run, Path(file).expanduser()))

        text = (
            "One row per step: loss, learning rate, tokens, memory, held-out loss … The file name "
            "ends in .csv or .parquet."
        )
        check = _mistake(lambda file: checked_target(Path(file.strip()).expanduser()))
        dialog = LineDialog("Export metrics (CSV/Parquet)", text, str(Path.home() / f"{one.run.id}.csv"), check=check)
        self.app.push_screen(dialog, typed)

    async def _write_table(self, run: RunFolder, file: Path) -> None:
        from workbench.runs.library.export_metrics import export_journal

        rows = await asyncio.to_thread(export_journal, run, file)
        self.notify(f"Exported {rows:,} rows to {plain(file)}", markup=False)


def _names(subjects: Sequence[ListedRun]) -> str:
    names = [plain(one.name) for one in subjects[:_NAMED_AT_MOST]]
    more = len(subjects) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _changes(line: str) -> tuple[list[str], list[str]]:
    """Tags to add and, those with a minus, to remove."""
    words = line.replace(",", " ").split()
    add = parse_tags(" ".join(word for word in words if not word.startswith("-")))
    return add, parse_tags(" ".join(word[1:] for word in words if word.startswith("-")))


def _mistake(read: Callable[[str], object]) -> Callable[[str], str]:
    """What is wrong with a line, as a dialog asks it."""

    def check(line: str) -> str:
        try:
            read(line)
        except WorkbenchError as error:
            return str(error)
        return ""

    return check
