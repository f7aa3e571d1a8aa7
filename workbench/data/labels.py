"""Finds the labels of a dataset for classification."""

from workbench.data.records.conversation import Labeled
from workbench.data.records.labeled import in_order
from workbench.data.sources import Records
from workbench.errors import WorkbenchError
from workbench.progress import Cancelled

MOST_LABELS = 1000
"""More different values are no labels but numbers or texts."""


def label_names(records: Records, cancelled: Cancelled) -> tuple[str, ...]:
    """The labels of all records, held-out ones included, in the order of their ids. Reads every record.

    Raises:
        WorkbenchError: there are fewer than two, or more than :data:`MOST_LABELS`; or ``kind="cancelled"``.
    """
    found: set[str] = set()
    for item in records.items():
        if cancelled():
            raise WorkbenchError("Reading the labels was cancelled.", kind="cancelled")
        if not isinstance(item.content, Labeled):
            continue
        found.add(item.content.label)
        if len(found) > MOST_LABELS:
            raise WorkbenchError(
                f"The label column has more than {MOST_LABELS:,} different values, such as {item.content.label!r}.",
                "Name the column that holds the class in data.columns, such as {text: body, label: topic}.",
                kind="data_labels",
            )
    if len(found) < 2:
        only = f"only the label {next(iter(found))!r}" if found else "no label"
        raise WorkbenchError(
            f"The records have {only}; a classifier needs two or more.",
            "Name another column in data.columns, such as {text: body, label: topic}, or add records.",
            kind="data_labels",
        )
    return tuple(in_order(found, records.class_order))
