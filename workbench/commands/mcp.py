"""``loraworkbench mcp``: offers the workbench as tools to a client of the Model Context Protocol."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.common import home_of
from workbench.errors import WorkbenchError


def mcp(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Read data and models, and write exports, only below this folder.")
    ] = Path(),
) -> None:
    """Serve the Model Context Protocol on standard input and output, for agents that plan, train and evaluate.

    The client starts this command itself. It opens no port, and ends when the client closes standard input.
    """
    if find_spec("mcp") is None:
        raise WorkbenchError(
            "`loraworkbench mcp` needs the package mcp, which is not installed.",
            'Install it: `pip install "loraworkbench[mcp]"`.',
            kind="missing_package",
        )
    root = folder.expanduser().resolve()
    if not root.is_dir():
        raise WorkbenchError(f"{folder} is not a folder.", "Give an existing one with --folder.", kind="bad_request")
    from workbench.commands.mcp_server.server import serve

    # Relative paths of the client start there.
    os.chdir(root)
    serve(home_of(context), root)
