"""Journals for the tests, as plain data: events by name and fields, as another program would write and read them."""

from pathlib import Path
from typing import Any

from workbench.runs import events
from workbench.runs import journal as real
from workbench.runs.events import AnyEvent, Unknown, to_fields

_TYPES: dict[str, type[events.Event]] = {kind.__struct_config__.tag: kind for kind in events.Known.__args__}


class Fields(dict[str, Any]):
    """An event's fields. One that its type has and the journal leaves out is None; any other is a mistake."""

    def __missing__(self, name: str) -> None:
        if name not in _TYPES[self["event"]].__struct_fields__:
            raise KeyError(name)


def event(name: str, **fields: Any) -> AnyEvent:
    """An event by its name; fields that its type does not have are kept as those of a newer version."""
    kind = _TYPES.get(name)
    if kind is None:
        return Unknown(event=name, fields=fields)
    fields = {"step": 0} | fields if kind is events.Step else fields
    known = {field: value for field, value in fields.items() if field in kind.__struct_fields__ and value is not None}
    more = {field: value for field, value in fields.items() if field not in kind.__struct_fields__}
    return kind(**known, more=more)  # type: ignore[return-value]


class JournalWriter(real.JournalWriter):
    """The workbench's own writer, told events by name."""

    def write(self, name: str | AnyEvent, **fields: Any) -> None:  # type: ignore[override]
        super().write(event(name, **fields) if isinstance(name, str) else name)


def read_events(path: Path) -> list[Fields]:
    """The whole events of a journal."""
    return [Fields(to_fields(one)) for one in real.each_event(path)]
