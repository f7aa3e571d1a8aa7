"""A form in sections, which can be folded to their headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget

from screens.forms.form import SettingForm
from screens.forms.row import SettingRow
from screens.widgets.glyphs import ENTER, GLYPHS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from screens.forms.fields import SettingGroup
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe


class SectionHeading(Widget):
    """The title of a section. A line of the form only while the section is folded."""

    DEFAULT_CSS = """
    SectionHeading { height: 1; width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space,right,l,plus", "unfold", "Unfold", key_display=ENTER, id="section.unfold",
                tooltip="Show the settings of the section"),
    ]  # fmt: skip

    def __init__(self, title: str, count: int, *, classes: str) -> None:
        super().__init__(classes=classes)
        self.title = title
        self._count = count
        self._changed = 0
        self.is_folded = False

    def show(self, *, is_folded: bool, changed: int) -> None:
        """Show whether it is folded, and how many of its settings are not at their defaults."""
        self.can_focus = is_folded
        if (is_folded, changed) != (self.is_folded, self._changed):
            self.is_folded, self._changed = is_folded, changed
            self.refresh()

    def render(self) -> Content:
        if not self.is_folded:
            return Content.styled(f"{GLYPHS.opened} {self.title}", "bold $muted")
        pointer = GLYPHS.pointer if self.has_focus else GLYPHS.closed
        changed = f", {GLYPHS.changed} {self._changed} changed" if self._changed else ""
        return Content.assemble(
            (f"{pointer} ", "$accent" if self.has_focus else "bold $muted"),
            (self.title, "bold" if self.has_focus else "bold $muted"),
            (f"  {self._count} settings{changed}", "$muted"),
        )

    async def on_click(self) -> None:
        form = next(node for node in self.ancestors if isinstance(node, SectionedForm))
        form.fold(form.section_of(self), not self.is_folded)

    def action_unfold(self) -> None:
        """Show the settings, and move to the first."""
        form = next(node for node in self.ancestors if isinstance(node, SectionedForm))
        form.fold(form.section_of(self), False)


@dataclass
class _Section:
    heading: SectionHeading
    rows: list[SettingRow]
    is_folded: bool

    @property
    def lines(self) -> list[Widget]:
        return [self.heading] if self.is_folded else list[Widget](self.rows)


class SectionedForm(SettingForm):
    """Settings in sections. Folded lines are neither laid out nor updated, so they cost a key nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pagedown", "section(1)", "Next section", show=False, id="form.next_section"),
        Binding("pageup", "section(-1)", "Previous section", show=False, id="form.previous_section"),
        Binding("z", "fold", "Fold section", show=False, id="form.fold", tooltip="Fold the section to its heading"),
    ]

    def __init__(self, groups: Sequence[SettingGroup], *, id: str | None = None) -> None:  # noqa: A002
        self._sections = [
            _Section(
                SectionHeading(group.title, len(group.settings), classes="group" if number else "group first"),
                [SettingRow(spec, id=id_of(spec.label)) for spec in group.settings],
                group.is_folded,
            )
            for number, group in enumerate(groups)
        ]
        super().__init__((row for section in self._sections for row in section.rows), id=id)
        self._recipe: Recipe | None = None
        self._skeleton: Skeleton | None = None
        for section in self._sections:
            self._arrange(section)

    def compose(self) -> ComposeResult:
        for section in self._sections:
            yield section.heading
            yield from section.rows

    @property
    def lines(self) -> Sequence[Widget]:
        return [line for section in self._sections for line in section.lines]

    def section_of(self, line: Widget) -> int:
        """Return the number of the section of a line."""
        return next(n for n, section in enumerate(self._sections) if line is section.heading or line in section.rows)

    def show(self, recipe: Recipe, skeleton: Skeleton | None) -> None:
        self._recipe, self._skeleton = recipe, skeleton
        for section in self._sections:
            self._show(section)

    def _show(self, section: _Section) -> None:
        changed = 0
        if self._recipe is not None:
            if section.is_folded:
                changed = sum(not row.spec.is_default(self._recipe) for row in section.rows)
            else:
                for row in section.rows:
                    row.show(self._recipe, self._skeleton)
        section.heading.show(is_folded=section.is_folded, changed=changed)

    def fold(self, number: int, is_folded: bool) -> None:
        """Fold a section and move to its heading, or unfold it and move to its first setting."""
        section = self._sections[number]
        section.is_folded = is_folded
        self._show(section)
        if is_folded:
            # Before its lines are hidden: Textual would move the focus of one to somewhere else.
            self._select(section.heading)
        self._arrange(section)
        if not is_folded:
            self._select(section.rows[0])
            self.call_after_refresh(section.rows[0].scroll_visible)

    def select_setting(self, path: str) -> bool:
        for number, section in enumerate(self._sections):
            if section.is_folded and any(path in (row.spec.path, *row.spec.also) for row in section.rows):
                self.fold(number, False)
        return super().select_setting(path)

    def _arrange(self, section: _Section) -> None:
        section.heading.set_class(section.is_folded, "-folded")
        for row in section.rows:
            row.display = not section.is_folded

    def action_section(self, by: int) -> None:
        """Move to the first line of the next section; back, of this one or of the one before."""
        lines = self.lines
        line = self._focused or lines[0]
        here = self.section_of(line)
        if by < 0 and line is not self._sections[here].lines[0]:
            by = 0
        number = min(max(here + by, 0), len(self._sections) - 1)
        self._select(self._sections[number].lines[0])

    def action_fold(self) -> None:
        """Fold the section of the selected setting."""
        if (line := self._focused) is not None and not isinstance(line, SectionHeading):
            self.fold(self.section_of(line), True)


def id_of(label: str) -> str:
    """Turn a label into an id, which may not contain signs such as ×, blanks and dots."""
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")
