"""Joins the messages of a tree, one a row, to a conversation: the best-rated path, as for OpenAssistant's data."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, islice

from workbench.data.rows.row import ReadRows, Row, RowSource

_NEEDED = frozenset({"message_id", "parent_id", "role", "text"})
_TREE = "message_tree_id"
OTHER_PATHS = "messages on other paths of the tree"


def joined_trees(source: RowSource) -> RowSource:
    """The same source with a conversation a row, if its rows are messages of trees, else the source itself."""
    first = next(islice(source.rows(), 1), None)
    if first is None or first.record is None or not first.record.keys() >= {*_NEEDED, _TREE}:
        return source
    eval_rows = source.eval_rows
    return replace(source, rows=_conversations(source.rows), eval_rows=_conversations(eval_rows) if eval_rows else None)


def _conversations(rows: ReadRows) -> ReadRows:
    """Reads rows as conversations; the messages of one tree follow each other, so one tree at a time is in memory."""

    def read() -> Iterator[Row]:
        for _, tree in groupby(rows(), key=_tree_of):
            messages = list(tree)
            yield from (row for row in messages if row.record is None)
            if readable := [row for row in messages if row.record is not None]:
                yield _best_path(readable)

    return read


def _tree_of(row: Row) -> object:
    return row.record.get(_TREE) if row.record is not None else None


def _best_path(rows: list[Row]) -> Row:
    """One tree's best-rated path; rank 0 is the best of the replies to one message."""
    records = [row.record for row in rows if row.record is not None and not row.record.get("deleted")]
    ids = {record.get("message_id") for record in records}
    children: dict[object, list[dict[str, object]]] = {}
    for record in records:
        parent = record.get("parent_id")
        children.setdefault(parent if parent in ids else None, []).append(record)
    path: list[dict[str, object]] = []
    at: object = None
    while following := children.pop(at, None):
        path.append(min(following, key=_rank))
        at = path[-1].get("message_id")
    conversation: dict[str, object] = {"messages": [_turn(record) for record in path]}
    if len(rows) > len(path):
        conversation[OTHER_PATHS] = len(rows) - len(path)
    return Row(conversation, rows[0].where, rows[-1].fraction, note=rows[0].note)


def _rank(record: dict[str, object]) -> float:
    rank = record.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")


def _turn(record: dict[str, object]) -> dict[str, object]:
    """A message as a turn, with everything else that is said of it."""
    rest = {key: value for key, value in record.items() if key not in _NEEDED}
    return {"role": record["role"], "content": record["text"], **rest}
