"""The keys of all tabs and dialogs as tables, for docs/app.md; and the letters that mean more than one thing."""

from __future__ import annotations

import pkgutil
from collections import defaultdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textual.binding import Binding
from textual.keys import format_key
from textual.screen import ModalScreen

import screens
from screens.shell.app_keys import KEYS
from screens.tabs import TABS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from textual.dom import DOMNode

    from screens.tabs import Tab

_FORM = ("screens.forms.row:SettingRow", "screens.forms.form:SettingForm")

# The widgets of a tab that have the focus on it, and with it keys of their own.
_PARTS = {
    "adapter": (*_FORM, "screens.forms.sections:SectionedForm"),
    "data": _FORM,
}

EXCEPTIONS: Mapping[str, str] = {
    "h": "In a form h j k l are the arrows, as in vi; on Chat h lists the conversations.",
    "k": "In a form h j k l are the arrows; on Train k saves a checkpoint.",
    "l": "In a form h j k l are the arrows; on Train l shows the log.",
    "p": "On Data and Chat the previous one, beside n for the next; on Train it pauses.",
    "r": "Train changes the learning rate, Runs reuses a recipe.",
    "u": "Takes something back: the last deletion on Runs, the last question on Chat.",
}
"""Letters that mean different things on different tabs, and why that is so."""


def keys_of(node: type[DOMNode]) -> Iterator[tuple[str, Binding]]:
    """Yield each named key of a widget's own class, as it is written, with its binding."""
    for binding in node.__dict__.get("BINDINGS", ()):
        if isinstance(binding, Binding) and binding.description:
            for key in binding.key.split(","):
                yield _written(key), binding


def keys_of_tab(tab: Tab) -> Iterator[tuple[str, Binding]]:
    """Yield the keys of a tab and of what has the focus on it."""
    for place in (f"{tab.module}:{tab.pane}", *_PARTS.get(tab.id, ())):
        module, _, name = place.partition(":")
        yield from keys_of(getattr(import_module(module), name))


def named_bindings() -> Iterator[tuple[str, tuple[str, Binding]]]:
    """Yield the bindings that a user can give other keys: the binding's id, with its place and itself."""
    places = [("Everywhere", KEYS), *((tab.label, _pane_of(tab).BINDINGS) for tab in TABS)]
    seen = set()
    for place, bindings in places:
        for binding in bindings:
            if isinstance(binding, Binding) and binding.id and binding.description and binding.id not in seen:
                seen.add(binding.id)
                yield binding.id, (place, binding)


def _pane_of(tab: Tab) -> type[DOMNode]:
    pane: type[DOMNode] = getattr(import_module(tab.module), tab.pane)
    return pane


def letters() -> dict[str, dict[str, list[str]]]:
    """The names of the actions of each letter, by letter and tab."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for tab in TABS:
        for key, binding in keys_of_tab(tab):
            names = found[key][tab.label]
            if len(key) == 1 and key.isalpha() and binding.description not in names:
                names.append(binding.description)
    return {
        key: dict(found[key]) for key in sorted(found, key=lambda one: (one.lower(), one)) if any(found[key].values())
    }


def ambiguous(by_tab: Mapping[str, Iterable[str]]) -> bool:
    """Whether the actions of one key on different tabs are of different kinds: the first word of a name is the kind."""
    kinds = [{name.split()[0] for name in names} for names in by_tab.values() if names]
    return not set.intersection(*kinds)


def dialogs() -> list[type[ModalScreen[Any]]]:
    """All dialogs of the app."""
    for module in pkgutil.walk_packages(screens.__path__, "screens."):
        import_module(module.name)
    found: list[type[ModalScreen[Any]]] = []
    rest = list(ModalScreen.__subclasses__())
    while rest:
        one = rest.pop()
        rest += one.__subclasses__()
        if one.__module__.startswith("screens."):
            found.append(one)
    return sorted(set(found), key=lambda one: one.__name__)


def tables() -> str:
    """Return the keys as Markdown: the letters by tab, the exceptions, the keys of the dialogs."""
    heads = [tab.label for tab in TABS]
    lines = [f"| | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    for key, by_tab in letters().items():
        lines.append(f"| `{key}` | {' | '.join(', '.join(by_tab.get(head, ())) for head in heads)} |")
    lines += ["", "Letters with more than one meaning:", ""]
    lines += [f"- `{key}`: {why}" for key, why in EXCEPTIONS.items()]
    lines += ["", "| dialog | keys |", "|---|---|"]
    for dialog in dialogs():
        by_name: dict[str, list[str]] = defaultdict(list)
        for key, binding in keys_of(dialog):
            by_name[binding.description].append(f"`` {key} ``" if "`" in key else f"`{key}`")
        if by_name:
            texts = (f"{' '.join(keys)} {name}" for name, keys in by_name.items())
            lines.append(f"| {dialog.__name__} | {', '.join(texts)} |".replace("`|`", "`\\|`"))
    return "\n".join(lines)


def _written(key: str) -> str:
    """A key as it is written: ``ctrl+s`` → ``^s``, ``number_sign`` → ``#``."""
    modifiers, _, name = key.rpartition("+")
    shown = format_key(name)
    return f"{modifiers}+{shown}".replace("ctrl+", "^") if modifiers else shown
