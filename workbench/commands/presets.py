"""``loraworkbench presets``: list the ready-made recipes, or print one."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import JsonOption, console, home_of, print_json, printable
from workbench.recipe.presets import describe_presets, load_preset
from workbench.recipe.text import to_yaml


def presets(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Show this preset's recipe.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List all presets, shipped and saved, or print one as YAML."""
    home = home_of(context)
    if name is not None:
        recipe = load_preset(name, home)
        if as_json:
            print_json(recipe.as_dict())
        else:
            # Not through the console, which would wrap long lines.
            sys.stdout.write(to_yaml(recipe))
        return
    for about in describe_presets(home):
        if as_json:
            print_json(asdict(about))
        else:
            yours = "  (yours)" if about.own else ""
            console.print(
                Text.assemble((f"{printable(about.name):20}", "bold"), printable(about.title), (yours, "dim"))
            )
