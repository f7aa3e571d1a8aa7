"""The keys that texts name: those in force, which the user may have changed in the settings."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.keys import format_key

from screens.tabs import TABS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.binding import BindingType

_NAMES = {"enter": "Enter", "escape": "Esc", "space": "Space", "pageup": "PageUp", "pagedown": "PageDown"}
_PLACE = re.compile(r"\{([a-z]+\.[a-z_]+)\}")

_own: dict[str, str] = {}
_changed: dict[str, str] = {}


def register(bindings: Iterable[BindingType]) -> None:
    """Take the keys that actions have unless the user changes them, by the ids of their bindings."""
    _own.update({one.id: one.key for one in bindings if isinstance(one, Binding) and one.id})


def use_keys(changed: Mapping[str, str]) -> None:
    """Name these keys from now on, by the ids of the bindings; all others have their own."""
    _changed.clear()
    _changed.update(changed)


def key(action: str) -> str:
    """Return the first key of an action as a text names it: ``key("run.stop")`` is ``s``, or ``Ctrl+S`` if changed.

    Raises:
        KeyError: no tab has a binding of this id.
    """
    if action not in _own:
        # The keys of a tab are known once it is imported; most ids begin with the tab's own, which is imported first.
        for tab in sorted(TABS, key=lambda one: one.id != action.partition(".")[0]):
            import_module(tab.module)
            if action in _own:
                break
    return _written((_changed.get(action) or _own[action]).split(",")[0].strip())


def keyed(text: str) -> str:
    """Return a text with the keys in the place of their actions: ``{run.stop} stops`` becomes ``s stops``."""
    return _PLACE.sub(lambda found: key(found[1]), text)


def _written(name: str) -> str:
    *modifiers, last = name.split("+") if len(name) > 1 else [name]
    shown = _NAMES.get(last) or (last.upper() if re.fullmatch(r"f\d+", last) else format_key(last))
    if modifiers and len(shown) == 1:
        shown = shown.upper()
    return "+".join([*(one.capitalize() for one in modifiers), shown])
