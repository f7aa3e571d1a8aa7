"""Runs renamed and tagged, live ones too: their folders and journals are not touched."""

from collections.abc import Sequence

from workbench.errors import WorkbenchError
from workbench.runs.folder import RunFolder, all_runs
from workbench.runs.label import Label, checked_name, with_tags, write_label
from workbench.storage.paths import Home


def rename_run(home: Home, run: RunFolder, name: str) -> Label:
    """Give a run a name that it is shown and found by; an empty one or its id takes the name back.

    Raises:
        WorkbenchError: the name cannot be one, or another run has it as name or id.
    """
    wanted = checked_name(name)
    wanted = "" if wanted == run.id else wanted
    others = [one for one in all_runs(home) if one.id != run.id] if wanted else []
    for other in others:
        if wanted.casefold() in (other.id.casefold(), other.label.name.casefold()):
            raise WorkbenchError(
                f"Another run, {other.id}, is already named {wanted}.", "Choose another name.", kind="label"
            )
    label = Label(wanted, run.label.tags)
    write_label(run.path, label)
    return label


def tag_run(run: RunFolder, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Label:
    """Give a run tags, and take some from it.

    Raises:
        WorkbenchError: they would be too many, or the disk refuses.
    """
    label = with_tags(run.label, list(add), list(remove))
    write_label(run.path, label)
    return label
