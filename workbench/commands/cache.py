"""``loraworkbench cache``: lists and removes cached files."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, console, home_of, print_json, printable
from workbench.models.cache_listing import KINDS, cached_files, clear
from workbench.units import file_size

app = typer.Typer(
    help="Cached files: quantized bases, tokens, traces, converted models.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def cache(context: typer.Context, as_json: JsonOption = False) -> None:
    if context.invoked_subcommand is not None:
        return
    files = cached_files(home_of(context))
    if as_json:
        for file in files:
            print_json({**asdict(file), "place": str(file.place)})
        return
    if not files:
        console.print("The cache is empty.")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "size", "last used", "what"):
        fixed = heading != "what"
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=fixed, overflow="fold")
    for file in files:
        used = datetime.fromtimestamp(file.used).strftime("%Y-%m-%d %H:%M")
        what = Text.assemble(printable(file.what), "\n", (printable(str(file.place)), "dim"))
        table.add_row(file.kind, file_size(file.bytes, 2), used, what)
    console.print(table)
    total = file_size(sum(file.bytes for file in files), 2)
    console.print(f"\n{total} in total. `loraworkbench cache clear KIND` removes one kind.")


@app.command("clear")
def clear_kinds(
    context: typer.Context,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND…", help=f"One or more of {', '.join(KINDS)}. Default: all except models."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove cached files. Runs are never removed; models only if named."""
    for kind, freed in clear(home_of(context), kinds or []).items():
        if as_json:
            print_json({"kind": kind, "bytes": freed})
        else:
            console.print(Text(f"{kind}: {file_size(freed, 2)} removed." if freed else f"{kind}: nothing to remove."))
