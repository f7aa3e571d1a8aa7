"""Shared by all commands: home, console, common options, loading recipes, printing errors and JSON."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from workbench.errors import WorkbenchError
from workbench.plain_text import plain
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment, read
from workbench.storage.paths import Home

# Valid in JSON, but escaped: some terminals interpret C1 codes as control sequences, direction overrides can disguise
# text, and lone surrogates cannot be encoded.
_UNSAFE = (*range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPED = str.maketrans({code: f"\\u{code:04x}" for code in (*_UNSAFE, *range(0xD800, 0xE000))})

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, such as adapter.r=64.")
]

BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="SOURCE",
        help="The base model's path or name on this machine. Default: the one that the run or the adapter names.",
    ),
]


def home_of(context: typer.Context) -> Home:
    """The home selected by ``--home`` or the environment."""
    home = context.obj
    assert isinstance(home, Home)
    return home


def fail(error: WorkbenchError) -> NoReturn:
    """Print an error and what to do about it, and exit with 1."""
    mark = "✗ " if _is_utf8(errors.encoding) else "error: "
    errors.print(Text(mark, style="bold red"), Text(printable(error.message)), sep="")
    if error.cure:
        errors.print(Text(printable(error.cure)))
    raise typer.Exit(1)


def exit_with(error: Exception, doing: str, home: Home) -> NoReturn:
    """Print any exception as an error and end the process with 1; an unknown one is logged in the home."""
    from workbench.failures.diagnose import diagnose

    try:
        fail(diagnose(error, doing, home.terminal_log))
    except typer.Exit:
        raise SystemExit(1) from None


def print_json(value: object) -> None:
    """Print a JSON value on one line, and flush it."""
    line = json.dumps(value, ensure_ascii=not _is_utf8(sys.stdout.encoding))
    sys.stdout.write(line.translate(_ESCAPED) + "\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """Text from outside without terminal control characters; line breaks and tabs are kept."""
    return plain(text, lines=True)


def run_async(work: Coroutine[object, object, None]) -> None:
    """Run a command's coroutine; Ctrl-C ends it without a traceback."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def recipe_from(home: Home, name: str, assignments: list[str] | None) -> Recipe:
    """Load a recipe from a YAML file or a preset, and apply ``--set``.

    Raises:
        WorkbenchError: no such recipe exists, or it has mistakes.
    """
    from workbench.recipe.presets import load_preset, preset_names

    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        recipe = read(Path(name))
    elif name in preset_names(home):
        recipe = load_preset(name, home)
    else:
        raise WorkbenchError(
            f"No recipe file or preset named {name}.",
            f"Presets: {', '.join(preset_names(home))}.",
            kind="no_recipe",
        )
    return edited(recipe, assignments)


def edited(recipe: Recipe, assignments: list[str] | None) -> Recipe:
    """Apply ``--set`` to a recipe."""
    return edit(recipe, dict(parse_assignment(text) for text in assignments or []))


def figure(value: object, digits: int = 2) -> str:
    """Format a number from a journal, which has infinities and NaN as text."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else printable(str(value))


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "") == "utf8"
