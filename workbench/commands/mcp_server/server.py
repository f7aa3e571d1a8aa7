"""The MCP server: each method of :class:`~workbench.commands.mcp_server.tools.Tools` is a tool."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from workbench import __version__
from workbench.commands.mcp_server.client_folder import ClientFolder
from workbench.commands.mcp_server.tools import Tools
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.plain_text import plain
from workbench.storage.paths import Home

_INSTRUCTIONS = (
    "loraworkbench fine-tunes language models with LoRA and QLoRA on this machine. `models` lists bases, `data_facts` "
    "counts records and tokens, `estimate` predicts parameters and peak memory, `train` starts a run, `watch` follows "
    "it, `evaluate` compares it with its base, `export` makes files for other programs. A recipe is the name of a "
    "preset or a YAML file, changed by `settings`: dotted keys, such as "
    '{"adapter.r": 32, "data.source": "records.jsonl"}.'
)

# These change nothing.
_READ_ONLY = ("models", "presets", "estimate", "data_facts", "runs", "watch")


def serve(home: Home, root: Path) -> None:
    """Answer one client on standard input and output until it closes them."""
    make_server(home, root).run("stdio")


def make_server(home: Home, root: Path) -> MCPServer[Any]:
    """The server with all tools.

    Args:
        root: the folder that the client may read and write.
    """
    server = MCPServer[Any]("loraworkbench", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")
    tools = Tools(home, ClientFolder(root))
    for name, method in inspect.getmembers(tools, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            annotations = ToolAnnotations(read_only_hint=name in _READ_ONLY, destructive_hint=name == "stop")
            server.add_tool(_with_errors(method, home), name=name, annotations=annotations)
    return server


def _with_errors(
    method: Callable[..., Awaitable[dict[str, Any]]], home: Home
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The method with every error as a sentence and its cure, which is all that the client sees."""

    @functools.wraps(method)
    async def call(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            return await method(*arguments, **named)
        except WorkbenchError as error:
            found = error
        except Exception as error:
            found = diagnose(error, f"the tool {method.__name__}", home.terminal_log)
        raise ToolError(plain(str(found), lines=True)) from None

    return call
