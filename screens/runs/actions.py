"""What can be done with runs of the history: name, tag, delete, export, evaluate, reuse, resume, chat."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from screens.dialogs.questions import YES, Choice, ChoiceDialog, LineDialog
from screens.forms.path_kinds import TABLE
from screens.messages import ResumeAsked, RunSelected
from screens.widgets.key_texts import keyed
from screens.widgets.plain import plain
from workbench.errors import WorkbenchError
from workbench.runs.label import checked_name, parse_tags
from workbench.runs.library.naming import rename_run, tag_run
from workbench.runs.library.trash import delete_run, restore_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from screens.workbench import Workbench
    from workbench.runs.folder import RunFolder
    from workbench.runs.library.listing import ListedRun

_NAMED_AT_MOST = 5


_AGAIN = "Press {tab.train}, then {train.start}, to run it again."


class RunActions:
    """Asks what is to be asked, and does it.

    Args:
        workbench: the app.
        changed: called after runs were renamed, tagged, deleted or restored.
    """

    def __init__(self, workbench: Workbench, changed: Callable[[], Awaitable[None]]) -> None:
        self._workbench = workbench
        self._changed = changed
        self._deleted: list[list[str]] = []

    # -- names and tags -------------------------------------------------------------------------------------------

    def rename(self, one: ListedRun) -> None:
        """Ask for a name for a run."""

        def typed(name: str | None) -> None:
            if name is not None:
                self._workbench.attempt(self._rename(one.run, name))

        text = (
            f"Used wherever the run is shown or searched. The id and folder stay {one.run.id}. Leave "
            "empty to remove the name."
        )
        dialog = LineDialog("Name of the run", text, one.label.name, check=_mistake(checked_name))
        self._workbench.push_screen(dialog, typed)

    async def _rename(self, run: RunFolder, name: str) -> None:
        await asyncio.to_thread(rename_run, self._workbench.session.home, run, name)
        await self._changed()

    def tag(self, runs: Sequence[ListedRun]) -> None:
        """Ask for tags to add to runs, or to remove from them."""

        def typed(line: str | None) -> None:
            if line is not None:
                self._workbench.attempt(self._tag(runs, line))

        present = " ".join(dict.fromkeys(one.tags for one in runs if one.tags)) or "no tags yet"
        text = f"{_names(runs)}: {present}\nTags to add; prefix a tag with a minus to remove it."
        dialog = LineDialog("Tags", text, placeholder="pirate -old", check=_mistake(_tag_changes))
        self._workbench.push_screen(dialog, typed)

    async def _tag(self, runs: Sequence[ListedRun], line: str) -> None:
        added, removed = _tag_changes(line)
        for one in runs:
            await asyncio.to_thread(tag_run, one.run, added, removed)
        await self._changed()

    # -- the trash ------------------------------------------------------------------------------------------------

    def delete(self, runs: Sequence[ListedRun]) -> None:
        """Move runs to the trash, if the user confirms."""

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._workbench.attempt(self._delete(runs))

        links = [one.run for one in runs if one.run.path.is_symlink()]
        text = "Moves the run to the trash. u or `loraworkbench runs restore` restores it."
        if links:
            text += f" Only the link of {', '.join(run.id for run in links)} moves; its folder stays in place."
        delete = Choice(YES, "Move to trash", "delete")
        question = ChoiceDialog(f"Delete {_names(runs)}?", text, [delete], no="Keep", is_risky=True)
        self._workbench.push_screen(question, answered)

    async def _delete(self, runs: Sequence[ListedRun]) -> None:
        session, deleted = self._workbench.session, list[str]()
        try:
            for one in runs:
                live = session.status.run if session.status is not None else None
                await asyncio.to_thread(delete_run, session.home, one.run, live_run=live)
                deleted.append(one.run.id)
        finally:
            if deleted:
                self._deleted.append(deleted)
                text = f"Moved {', '.join(deleted)} to the trash. u restores the last deletion."
                self._workbench.notify(text, markup=False)
                await self._changed()

    @property
    def can_undelete(self) -> bool:
        """Whether something was deleted since the app started."""
        return bool(self._deleted)

    def undelete(self) -> None:
        """Restore the runs that were deleted last."""
        if self._deleted:
            self._workbench.attempt(self._undelete(self._deleted.pop()))

    async def _undelete(self, runs: list[str]) -> None:
        try:
            for run in runs:
                await asyncio.to_thread(restore_run, self._workbench.session.home, run)
        finally:
            await self._changed()
        self._workbench.notify(f"Restored {', '.join(runs)}.", markup=False, timeout=3)

    # -- exports and evaluation -----------------------------------------------------------------------------------

    def export_metrics(self, one: ListedRun) -> None:
        """Ask for a file, and write the metrics of a run to it as CSV or Parquet."""
        from workbench.runs.library.export_metrics import checked_target

        def typed(file: str | None) -> None:
            if file is not None:
                self._workbench.attempt(self._export_metrics(one.run, Path(file).expanduser()))

        text = (
            "One row per step: loss, learning rate, tokens, memory, held-out loss … The file name "
            "ends in .csv or .parquet."
        )
        check = _mistake(lambda file: checked_target(Path(file.strip()).expanduser()))
        file = str(Path.home() / f"{one.run.id}.csv")
        dialog = LineDialog("Export metrics (CSV/Parquet)", text, file, check=check, paths=TABLE)
        self._workbench.push_screen(dialog, typed)

    async def _export_metrics(self, run: RunFolder, file: Path) -> None:
        from workbench.runs.library.export_metrics import export_journal

        rows = await asyncio.to_thread(export_journal, run, file)
        self._workbench.notify(f"Exported {rows:,} rows to {plain(file)}", markup=False)

    def export(self, one: ListedRun) -> None:
        """Show the export dialog of a run."""
        from screens.runs.export_dialog import ExportDialog

        self._workbench.push_screen(ExportDialog(self._workbench.session.home, one.run))

    def evaluate(self, one: ListedRun) -> None:
        """Show the evaluation of a run."""
        from screens.runs.evaluation import EvaluationScreen

        self._workbench.push_screen(EvaluationScreen(one.run))

    def serve(self, one: ListedRun) -> None:
        """Show the server of a run."""
        from screens.dialogs.serve import ServeScreen

        self._workbench.push_screen(ServeScreen(self._workbench, one.run.id, one.name))

    # -- on other tabs --------------------------------------------------------------------------------------------

    def reuse(self, one: ListedRun) -> None:
        """Load the recipe and the name of a run as the current recipe."""
        try:
            recipe = one.run.recipe()
        except WorkbenchError as error:
            self._workbench.show_error(error)
            return
        self._workbench.set_recipe(recipe.as_dict())
        text = f"Loaded the recipe of {plain(one.name)}. {keyed(_AGAIN)}"
        self._workbench.notify(text, markup=False)

    async def resume(self, one: ListedRun) -> None:
        """Resume a run, and show it on Train."""
        await self._workbench.action_show_tab("train")
        if (pane := self._workbench.pane_in_front) is not None:
            pane.post_message(ResumeAsked(one.run))

    async def chat(self, one: ListedRun | None) -> None:
        """Open Chat with a run's adapter."""
        await self._workbench.action_show_tab("chat")
        pane = self._workbench.pane_in_front
        if one is not None and pane is not None:
            pane.post_message(RunSelected(one.run.id))


def _names(runs: Sequence[ListedRun]) -> str:
    names = [plain(one.name) for one in runs[:_NAMED_AT_MOST]]
    more = len(runs) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _tag_changes(line: str) -> tuple[list[str], list[str]]:
    """Return the tags to add and those to remove, which are typed with a minus."""
    words = line.replace(",", " ").split()
    added = parse_tags(" ".join(word for word in words if not word.startswith("-")))
    return added, parse_tags(" ".join(word[1:] for word in words if word.startswith("-")))


def _mistake(read: Callable[[str], object]) -> Callable[[str], str]:
    """Turn a function that raises into one that returns what is wrong with a line, as a dialog needs it."""

    def check(line: str) -> str:
        try:
            read(line)
        except WorkbenchError as error:
            return str(error)
        return ""

    return check
