"""A dialog to choose a file or folder in a tree, or a source used before."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DirectoryTree, OptionList, Static
from textual.widgets.option_list import Option

from screens.widgets.glyphs import ENTER, GLYPHS
from screens.widgets.path_completion import folder_of
from screens.widgets.plain import plain, plain_content
from screens.widgets.tree import ASCII_LINES, FOLDED, MOVES, UNFOLDED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from textual.app import ComposeResult

    from screens.widgets.path_completion import PathKind
    from screens.workbench import Workbench


class FileTree(DirectoryTree, inherit_bindings=False):
    """The files below a folder that a field takes; hidden ones are left out at first.

    Args:
        folder: the root at first.
        kind: what the field takes.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *MOVES,
        Binding("enter", "select_cursor", show=False),
        Binding("space", "use", show=False),
        Binding("full_stop", "hidden", show=False),
    ]
    ICON_NODE = FOLDED
    ICON_NODE_EXPANDED = UNFOLDED
    ICON_FILE = "  "
    if not GLYPHS.is_unicode:
        LINES = ASCII_LINES

    class Used(Message):
        """The selected file or folder is to be used."""

        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

    def __init__(self, folder: Path, kind: PathKind) -> None:
        super().__init__(folder)
        self.guide_depth = 2
        self._kind = kind
        self._shows_hidden = False

    def process_label(self, label: Any) -> Text:
        """Return a name as plain text: square brackets in it are not markup."""
        return label if isinstance(label, Text) else Text(plain(label))

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        """Return the folders, and the files of the expected type."""
        return [path for path in paths if self._is_shown(path)]

    def _is_shown(self, path: Path) -> bool:
        if path.name.startswith(".") and not self._shows_hidden:
            return False
        return os.path.isdir(path) or (self._kind.fits is not None and self._kind.fits(path))  # noqa: PTH112

    def action_use(self) -> None:
        """Use the selected file or folder."""
        if self.cursor_node is not None and self.cursor_node.data is not None:
            self.post_message(self.Used(self.cursor_node.data.path))

    def action_unfold(self) -> None:
        """Open the selected folder."""
        if self.cursor_node is not None and self.cursor_node.allow_expand:
            self.cursor_node.expand()

    def action_fold(self) -> None:
        """Close the selected folder, go to the one that it is in, or, at the top, show the folder above."""
        node = self.cursor_node
        if node is None or node is self.root:
            self.path = folder_above(self.path)
        elif node.allow_expand and node.is_expanded:
            node.collapse()
        elif node.parent is not None:
            self.move_cursor(node.parent)

    async def action_hidden(self) -> None:
        """Show or hide hidden files."""
        self._shows_hidden = not self._shows_hidden
        await self.reload()


class FileTreeScreen(ModalScreen[str | None]):
    """Returns an absolute path, or a source used before; None for none.

    Args:
        text: the text of the field; the tree starts at its folder.
        kind: what the field takes.
    """

    DEFAULT_CSS = """
    FileTreeScreen { align: center middle; background: $background 60%; }
    FileTreeScreen > Vertical {
        width: 84; max-width: 96%; height: 90%; border: round $border; background: $surface; padding: 0 1;
        border-title-style: bold; border-title-color: $foreground;
    }
    FileTreeScreen OptionList, FileTreeScreen OptionList:focus {
        height: auto; max-height: 8; padding: 0; background: $surface; scrollbar-size-vertical: 1;
        border: round $border-blurred; border-title-color: $foreground 70%; text-wrap: nowrap; text-overflow: ellipsis;
    }
    FileTreeScreen OptionList:focus { border: round $border; }
    FileTreeScreen OptionList > .option-list--option { padding: 0; }
    FileTreeScreen OptionList.-empty { display: none; }
    FileTreeScreen FileTree, FileTreeScreen FileTree:focus {
        height: 1fr; background: $surface; scrollbar-size-vertical: 1; border: round $border-blurred;
    }
    FileTreeScreen FileTree:focus { border: round $border; }
    FileTreeScreen .keys { color: $text-muted; height: auto; }
    FileTreeScreen .problem { color: $error; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Back", id="files.close", tooltip="Close without choosing"),
    ]

    def __init__(self, text: str, kind: PathKind) -> None:
        super().__init__()
        self._kind = kind
        self._used: tuple[str, ...] = ()
        self._list = OptionList(id="used", classes="-empty", markup=False)
        self._tree = FileTree(folder_of(text, kind), kind)
        self._problem = Static(classes="problem", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Choose a folder" if self._kind.fits is None else "Choose a file or folder"
            yield self._list
            yield self._tree
            yield self._problem
            arrows = "← →" if GLYPHS.is_unicode else "left, right"
            open_file = "" if self._kind.fits is None else ", use file"
            keys = f"{ENTER} open folder{open_file}   Space use   {arrows} close, open   . hidden files   Esc back"
            yield Static(keys, classes="keys", markup=False)

    async def on_mount(self) -> None:
        self._list.border_title = "used before"
        self._tree.focus()
        self._tree.cursor_line = 0
        home = cast("Workbench", self.app).session.home
        self._used = tuple(await asyncio.to_thread(self._kind.used, home))
        self._list.set_options([Option(plain_content(name)) for name in self._used])
        self._list.set_class(not self._used, "-empty")

    def action_close(self) -> None:
        """Close without an answer."""
        self.dismiss(None)

    @on(OptionList.OptionSelected)
    def _used_before(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._used[event.option_index])

    @on(DirectoryTree.DirectorySelected)
    def _opened(self, event: DirectoryTree.DirectorySelected) -> None:
        readable = os.access(event.path, os.R_OK | os.X_OK)
        self._problem.update("" if readable else plain_content(f"You may not read {event.path}."))

    @on(DirectoryTree.FileSelected)
    def _file_selected(self, event: DirectoryTree.FileSelected) -> None:
        self.dismiss(str(event.path))

    @on(FileTree.Used)
    def _path_used(self, event: FileTree.Used) -> None:
        self.dismiss(str(event.path))


def folder_above(folder: str | Path) -> Path:
    """Return the folder that contains a folder; the topmost one for itself."""
    from pathlib import Path

    return Path(folder).absolute().parent
