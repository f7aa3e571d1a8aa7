"""Renames and tags runs, also live ones: only their label file is written."""

from collections.abc import Sequence

from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, all_runs
from workbench.runs.label import Label, checked_name, with_tags, write_label
from workbench.storage.paths import Home


def rename_run(home: Home, run: RunFolder, name: str) -> Label:
    """Give a run another name; an empty name, or the run's id, removes the name.

    Raises:
        WorkbenchError: the name is not valid, or is the name or id of another run.
    """
    new_name = checked_name(name)
    new_name = "" if new_name == run.id else new_name
    others = [other for other in all_runs(home) if other.id != run.id] if new_name else []
    for other in others:
        if new_name.casefold() in (other.id.casefold(), other.label.name.casefold()):
            raise WorkbenchError(
                f"Another run, {other.id}, is already named {new_name}.", "Choose another name.", kind="label"
            )
    label = Label(new_name, run.label.tags)
    write_label(run.path, label)
    return label


def tag_run(run: RunFolder, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Label:
    """Add tags to a run and remove others.

    Raises:
        WorkbenchError: there would be too many tags, or the label cannot be written.
    """
    label = with_tags(run.label, list(add), list(remove))
    write_label(run.path, label)
    return label
