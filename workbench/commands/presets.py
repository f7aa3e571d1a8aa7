"""``loraworkbench presets``: ready recipes, where they come from, and what they advise."""

import sys
from typing import Annotated

import typer
from rich.text import Text

from workbench.commands.common import JsonOption, console, home_of, print_json, printable
from workbench.presets import describe_preset, load_preset, preset_names
from workbench.recipe_text import to_yaml


def presets(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Show this preset's recipe.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the presets, or print one as YAML."""
    home = home_of(context)
    if name is not None:
        recipe = load_preset(name, home)
        if as_json:
            print_json(recipe.as_dict())
        else:
            # Not through the console, which would break long lines where YAML does not.
            sys.stdout.write(to_yaml(recipe))
        return
    for preset in preset_names(home):
        about = describe_preset(preset, home)
        if as_json:
            print_json({"name": preset, "title": about.title, "origin": about.origin, "advice": about.advice})
        else:
            console.print(Text.assemble((f"{printable(preset):20}", "bold"), printable(about.title)))
