"""The module tree with its columns. Nodes are created when expanded, so a 70B model costs no more than a small one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import BindingType
from textual.widgets import Tree

from screens.architecture.tree_rows import (
    Place,
    adapted_at,
    class_text,
    dtype_text,
    is_left_alone,
    root_of,
    shape_text,
)
from screens.widgets.glyphs import GLYPHS, bar
from screens.widgets.plain import plain
from screens.widgets.tree import ASCII_LINES, FOLDED, MOVES, UNFOLDED
from workbench.units import short

if TYPE_CHECKING:
    from textual.widgets.tree import TreeNode

    from workbench.estimate.adapter.plan import AdapterPlan
    from workbench.models.skeleton import Skeleton
    from workbench.recipe.schema import Recipe

_GUIDE = 2
_SHARE_BAR = 6
_WIDE_FROM = 96


@dataclass(frozen=True)
class Column:
    """A column to the right of the names; ``width`` in cells includes the gap before it."""

    title: str
    width: int
    align: str = ">"


WIDE = (
    Column("shape", 16),
    Column("parameters", 15),
    Column("share", 17),
    Column("dtype", 7),
    Column("adapter", 24, "<"),
)
NARROW = (Column("param.", 8), Column("share", 8), Column("dtype", 7), Column("adapter", 10, "<"))


class ModuleTree(Tree[Place], inherit_bindings=False):
    """The modules in the order of ``print(model)``, repeated layers folded."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *MOVES,
    ]
    ICON_NODE = FOLDED
    ICON_NODE_EXPANDED = UNFOLDED
    if not GLYPHS.is_unicode:
        LINES = ASCII_LINES

    def __init__(self, **arguments: Any) -> None:
        super().__init__(Text(""), **arguments)
        self.guide_depth = _GUIDE
        self.auto_expand = False
        self._recipe: Recipe | None = None
        self._plan: AdapterPlan | None = None
        self._total = 1

    # -- content --------------------------------------------------------------------------------------------------

    def show_model(self, skeleton: Skeleton, recipe: Recipe, plan: AdapterPlan | None) -> None:
        """Show another model, expanded down to the modules of one layer."""
        self._recipe, self._plan, self._total = recipe, plan, max(skeleton.parameters, 1)
        self.reset(Text(""), root_of(skeleton))
        node = self.root
        while node.allow_expand and node.data is not None and not node.data.module.indices:
            self._open(node)
            node = max(node.children, key=_inner_parameters)
        self._open(node)
        for child in node.children:
            self._open(child)
        self.move_cursor(self.root)

    def show_recipe(self, recipe: Recipe, plan: AdapterPlan | None) -> None:
        """Show the same model under another recipe."""
        self._recipe, self._plan = recipe, plan
        # The cached line of every node depends on its ancestors, so refreshing the root repaints all.
        self.root.refresh()
        self.refresh()

    def _open(self, node: TreeNode[Place]) -> None:
        self._grow(node)
        if node.allow_expand:
            node.expand()

    def _grow(self, node: TreeNode[Place]) -> None:
        if node.data is not None and not node.children:
            for place in node.data.children:
                node.add(Text(""), place, allow_expand=bool(place.module.children))

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[Place]) -> None:
        self._grow(event.node)

    def reveal(self, path: str) -> None:
        """Expand the tree down to a module and put the cursor on it."""
        node = self.root
        while node.data is not None and node.data.path != path:
            self._open(node)
            below = [child for child in node.children if child.data and f"{path}.".startswith(f"{child.data.path}.")]
            if not below:
                return
            node = below[0]
        self.call_after_refresh(self.move_cursor, node)

    def action_fold(self) -> None:
        """Collapse the selected node, or go to its parent."""
        node = self.cursor_node
        if node is not None and node.is_expanded:
            node.collapse()
        elif node is not None and node.parent is not None:
            self.move_cursor(node.parent)

    def action_unfold(self) -> None:
        """Expand the selected node, or go to its first child."""
        node = self.cursor_node
        if node is None or not node.allow_expand:
            return
        if not node.is_expanded:
            self._open(node)
        elif node.children:
            self.move_cursor(node.children[0])

    # -- painting -------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that fit the width."""
        return WIDE if self.size.width >= _WIDE_FROM else NARROW

    def heading(self) -> Text:
        """Return the titles of the columns, for the line above the tree."""
        left = self.size.width - sum(column.width for column in self.columns)
        titles = "".join(_cell(column.title, column) for column in self.columns)
        return Text("module".ljust(max(left, 0)) + titles, no_wrap=True)

    def get_label_width(self, node: TreeNode[Place]) -> int:
        return max(self.size.width - self._indent(node), 1)

    @staticmethod
    def _indent(node: TreeNode[Place]) -> int:
        depth, parent = 0, node.parent
        while parent is not None:
            depth, parent = depth + 1, parent.parent
        return depth * _GUIDE

    def render_label(self, node: TreeNode[Place], base_style: Style, style: Style) -> Text:
        if node.data is None or self._recipe is None:
            return Text("")
        text = self._heading_of(node, node.data, self._recipe)
        room = self.get_label_width(node) - sum(column.width for column in self.columns)
        text.truncate(max(room, 4), overflow="ellipsis" if GLYPHS.is_unicode else "crop", pad=True)
        for column in self.columns:
            text.append_text(self._column(column, node.data, self._recipe))
        text.stylize_before(style)
        return text

    def _heading_of(self, node: TreeNode[Place], place: Place, recipe: Recipe) -> Text:
        icon = (self.ICON_NODE_EXPANDED if node.is_expanded else self.ICON_NODE) if node.allow_expand else ""
        text = Text(icon, style=Style(meta={"toggle": True}))
        if adapted_at(self._plan, place):
            text.append(f"{GLYPHS.on} ", self._color("accent"))
        if place.name:
            text.append(plain(place.name), "bold")
            text.append(" ")
        if place.module.indices:
            text.append(f"{place.module.count} × " if GLYPHS.is_unicode else f"{place.module.count} x ", "bold")
        style = self._color("warning") if is_left_alone(place, recipe) else self._color("muted")
        return text.append(plain(class_text(place, recipe)), style)

    def _column(self, column: Column, place: Place, recipe: Recipe) -> Text:
        share = place.parameters / self._total
        match column.title:
            case "shape":
                return Text(_cell(_ascii(shape_text(place)), column))
            case "parameters":
                return Text(_cell(f"{place.parameters:,}" if place.parameters else "", column))
            case "param.":
                return Text(_cell(short(place.parameters) if place.parameters else "", column))
            case "share" if not place.parameters:
                return Text(" " * column.width)
            case "share":
                percent = f"{100 * share:.1f} %" if share >= 0.0005 else "<0.1 %"
                if column.width < _SHARE_BAR + 8:
                    return Text(_cell(percent.replace(" ", ""), column), self._color("muted"))
                return Text.assemble(
                    "  ",
                    (bar(share, _SHARE_BAR), f"{self._color('primary')} on {self._color('panel')}"),
                    (percent.rjust(column.width - 2 - _SHARE_BAR), self._color("muted")),
                )
            case "dtype":
                return Text(_cell(dtype_text(place, recipe), column), self._color("muted"))
            case _:
                return Text(_cell(self._adapter(place, column), column), self._color("accent"))

    def _adapter(self, place: Place, column: Column) -> str:
        """Return ``A 16×576 B 192×16``, or the number of added parameters if there is no room for that.

        ``frozen: vision`` at the top of a part that gets no adapter.
        """
        adapted = adapted_at(self._plan, place)
        if not adapted:
            kind = place.module.facts.get("frozen", "")
            return plain(f"frozen: {kind}" if kind and column.width >= 20 else kind and "frozen")
        if len(adapted) > 1 or column.width < 20:
            return f"+{short(sum(one.parameters * one.count for one in adapted))}"
        shapes = {tensor.label: _ascii("×".join(map(str, tensor.shape))) for tensor in adapted[0].tensors}
        words = " ".join(f"{label.removeprefix('lora_')} {shape}" for label, shape in list(shapes.items())[:2])
        return words if len(words) < column.width else f"+{short(adapted[0].parameters * adapted[0].count)}"

    def _color(self, name: str) -> str:
        return self.app.theme_variables[name]


def _inner_parameters(node: TreeNode[Place]) -> int:
    """Return the parameters of a module that can be expanded and trained; -1 for others."""
    return node.data.parameters if node.data is not None and node.allow_expand and not node.data.frozen else -1


def _cell(text: str, column: Column) -> str:
    width = column.width - 2
    fitted = text if len(text) <= width else text[: width - 1] + GLYPHS.ellipsis
    return f"  {fitted:{column.align}{width}}"


def _ascii(text: str) -> str:
    return text if GLYPHS.is_unicode else text.replace("×", "x").replace("→", ">")
