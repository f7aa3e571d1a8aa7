"""The settings of the workbench: theme, notification, end of a run, limits of engine and caches, keys."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from screens.dialogs.pick import PickDialog
from screens.dialogs.questions import LineDialog
from screens.dialogs.search_dialog import Entry, SearchDialog
from screens.shell.key_table import named_bindings
from screens.widgets.box_screen import BoxScreen
from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.paragraph import Paragraph
from screens.widgets.plain import plain, plain_content
from workbench.storage.settings import Settings

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from screens.workbench import Workbench

_SAVED = "Saved in settings.json."


@dataclass(frozen=True)
class _Row:
    """A setting: its key, dotted in a group, its name, and how it is changed."""

    key: str
    name: str
    kind: Literal["theme", "switch", "number", "text", "keys"]


_ROWS = (
    _Row("theme", "Theme", "theme"),
    _Row("notify", "Notify at the end of a run", "switch"),
    _Row("on_end", "Command at the end of a run", "text"),
    _Row("engine.unload_after_minutes", "Unload the model after (minutes)", "number"),
    _Row("engine.stop_after_minutes", "Stop the idle engine after (minutes)", "number"),
    _Row("cache.quantised_gb", "Cache of quantized bases (GB)", "number"),
    _Row("cache.tokens_gb", "Cache of tokenized data (GB)", "number"),
    _Row("keys", "Keys", "keys"),
)


class SettingsScreen(BoxScreen[None]):
    """Lists the settings with their values; Enter changes one."""

    NAME: ClassVar[str] = "Settings"
    GUIDE: ClassVar[str] = (
        "The settings of this home, in its settings.json. Enter changes the selected one: it switches, chooses from a "
        "list or asks for a value. Keys lists all actions; choose one and type another key for it, such as ctrl+s or "
        "f12, or nothing for its own. The settings of a run are its recipe, on Adapter and Data."
    )
    DEFAULT_CSS = """
    SettingsScreen > VerticalGroup { width: 92; }
    SettingsScreen OptionList, SettingsScreen OptionList:focus {
        height: auto; border: none; background: $surface; padding: 0; margin: 1 0;
    }
    SettingsScreen Paragraph { height: 3; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f10", "leave", "Back", id="settings.leave"),
    ]

    def __init__(self, app: Workbench) -> None:
        super().__init__()
        self._workbench = app
        self._list = OptionList()
        self._about = Paragraph(id="about")

    def compose(self) -> ComposeResult:
        with VerticalGroup() as box:
            box.border_title = "Settings"
            box.border_subtitle = f"{ENTER} change   Esc back"
            yield self._list
            yield self._about

    def on_mount(self) -> None:
        self._list.focus()
        self._show()

    def _show(self) -> None:
        at = self._list.highlighted or 0
        self._list.clear_options()
        self._list.add_options(Option(self._line(row)) for row in _ROWS)
        self._list.highlighted = at

    def _line(self, row: _Row) -> Content:
        value = _value(self._workbench.session.settings, row.key)
        match row.kind:
            case "switch":
                text = f"{GLYPHS.checked if value else GLYPHS.unchecked} {'on' if value else 'off'}"
            case "theme":
                text = value or "workbench-dark"
            case "keys":
                text = f"{len(value)} changed" if value else "as they are"
            case _:
                text = "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)
        return Content.assemble((f"{row.name:<40}", "bold"), plain(text))

    @on(OptionList.OptionHighlighted)
    def _explain(self, event: OptionList.OptionHighlighted) -> None:
        row = _ROWS[event.option_index]
        self._about.show(plain_content(_description(row.key), lines=True))

    # -- changing -------------------------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    def _change(self, event: OptionList.OptionSelected) -> None:
        row = _ROWS[event.option_index]
        value = _value(self._workbench.session.settings, row.key)
        match row.kind:
            case "switch":
                self._take(row.key, not value)
            case "theme":
                names = sorted(self.app.available_themes, key=lambda name: (not name.startswith("workbench"), name))
                dialog = PickDialog("Theme", [(name, name) for name in names], self.app.theme)
                self.app.push_screen(dialog, lambda name: self._take(row.key, name) if name else None)
            case "keys":
                self._choose_action()
            case kind:
                self._ask(row, value, is_number=kind == "number")

    def _ask(self, row: _Row, value: object, *, is_number: bool) -> None:
        def typed(text: str | None) -> None:
            if text is not None:
                self._take(row.key, _parsed(text, is_number=is_number))

        def problem(text: str) -> str:
            try:
                _changed(self._workbench.session.settings, row.key, _parsed(text, is_number=is_number))
            except (ValidationError, ValueError):
                return "Enter a number, 0 or more." if is_number else "That is not possible here."
            return ""

        shown = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        self.app.push_screen(LineDialog(row.name, _description(row.key), shown, check=problem), typed)

    def _choose_action(self) -> None:
        keys = self._workbench.session.settings.keys
        bindings = dict(named_bindings())
        entries = [
            Entry(name, f"{place}: {binding.description}", keys.get(name, binding.key), name)
            for name, (place, binding) in bindings.items()
        ]

        def chosen(name: str | None) -> None:
            if name is not None:
                place, binding = bindings[name]
                self._ask_key(name, f"{place}: {binding.description}", keys.get(name, ""), binding.key)

        self.app.push_screen(SearchDialog("Keys", entries, "Name of an action, such as stop or evaluate"), chosen)

    def _ask_key(self, name: str, label: str, now: str, default: str) -> None:
        def typed(text: str | None) -> None:
            if text is not None:
                keys = {one: key for one, key in self._workbench.session.settings.keys.items() if one != name}
                self._take("keys", keys | ({name: text.strip()} if text.strip() else {}))

        text = f"Key for this action, such as ctrl+s, f12 or S. Several are separated by commas. Empty: {default}."
        self.app.push_screen(LineDialog(label, text, now, default), typed)

    def _take(self, key: str, value: object) -> None:
        """Change a setting, apply it, and save it."""
        session = self._workbench.session
        top = key.partition(".")[0]
        changed = _changed(session.settings, key, value)
        session.remember(**{top: getattr(changed, top)})
        self._workbench.apply_settings()
        self._workbench.attempt(self._save())
        self._show()

    async def _save(self) -> None:
        await asyncio.to_thread(self._workbench.session.save)
        self.notify(_SAVED, timeout=2)

    def action_leave(self) -> None:
        """Close the settings."""
        self.dismiss(None)


def _value(settings: Settings, key: str) -> Any:
    found: Any = settings
    for name in key.split("."):
        found = getattr(found, name)
    return found


def _description(key: str) -> str:
    fields: Any = Settings.model_fields
    *groups, name = key.split(".")
    for group in groups:
        fields = fields[group].annotation.model_fields
    return str(fields[name].description or "")


def _changed(settings: Settings, key: str, value: object) -> Settings:
    """The settings with another value.

    Raises:
        ValidationError: the value is not allowed.
    """
    data = settings.model_dump()
    group, _, name = key.rpartition(".")
    (data[group] if group else data)[name or key] = value
    return Settings.model_validate(data)


def _parsed(text: str, *, is_number: bool) -> object:
    """What was typed as a number, or as text of which an empty one is none."""
    return float(text.strip().replace(",", ".")) if is_number else text.strip() or None
