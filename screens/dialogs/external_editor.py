"""Texts edited in the user's own editor, ``$VISUAL`` or ``$EDITOR``, while the app gives it the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from textual.app import App

_USUAL = ("nano", "vim", "vi")


def edit_in_editor(app: App[object], text: str, suffix: str) -> str:
    """Return the text as the user left it in the editor; the app is suspended meanwhile.

    Args:
        suffix: of the file, such as ``.yaml``, by which editors choose their colors.

    Raises:
        WorkbenchError: there is no editor, it failed, or this terminal cannot be given to it.
    """
    command = editor_command()
    with tempfile.TemporaryDirectory(prefix="loraworkbench-") as folder:
        file = Path(folder) / f"edit{suffix}"
        file.write_text(text, encoding="utf-8")
        try:
            with app.suspend():
                status = subprocess.run([*command, str(file)], check=False).returncode
        except SuspendNotSupported:
            raise WorkbenchError("This terminal cannot be given to an editor.", "Edit the text here.") from None
        except OSError as error:
            raise WorkbenchError(f"{command[0]} could not be started: {error.strerror}.", "Set $EDITOR.") from None
        if status:
            raise WorkbenchError(f"{command[0]} ended with exit code {status}; the text is as before.", "")
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkbenchError(f"The edited text cannot be read: {error}.", "The text is as before.") from None


def editor_command() -> list[str]:
    """Return the words of ``$VISUAL`` or ``$EDITOR``, or the first usual editor that is installed.

    Raises:
        WorkbenchError: there is none, or the variable cannot be split into words.
    """
    for name in ("VISUAL", "EDITOR"):
        if value := os.environ.get(name, "").strip():
            try:
                return shlex.split(value)
            except ValueError as error:
                raise WorkbenchError(f"${name} cannot be read: {error}.", f"Set ${name} to a command.") from None
    found = next((editor for editor in _USUAL if shutil.which(editor)), None)
    if found is None:
        raise WorkbenchError("There is no editor.", "Set $EDITOR to the command of one, such as nano.")
    return [found]
