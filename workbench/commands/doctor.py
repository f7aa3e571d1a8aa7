"""``loraworkbench doctor``: check this machine, and say what is missing and how to fix it."""

from dataclasses import asdict

import typer
from rich.text import Text

from workbench.commands.common import JsonOption, console, home_of, print_json, printable
from workbench.planning.doctor.checks import checks

_MARKS = {"ok": ("ok     ", "green"), "warning": ("warning", "yellow"), "problem": ("problem", "bold red")}


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Check Python, torch, CUDA, bitsandbytes, NVML, disk, token and hub. Exit code 1 on a problem."""
    problems = 0
    for check in checks(home_of(context)):
        problems += check.ok == "problem"
        if as_json:
            print_json(asdict(check))
            continue
        word, style = _MARKS[check.ok]
        console.print(Text.assemble((word, style), "  ", (check.name, "bold"), "  ", printable(check.found)))
        for line in (check.consequence, check.cure):
            if line and check.ok != "ok":
                console.print(Text("         " + printable(line)))
    if problems:
        raise typer.Exit(1)
