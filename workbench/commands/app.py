"""The command line: registers all commands with Typer and runs them."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench import __version__
from workbench.commands import (
    attach,
    cache,
    calibration,
    chat,
    control,
    data,
    demo,
    doctor,
    engine,
    estimate,
    evaluate,
    export,
    inspect,
    judge,
    mcp,
    models,
    presets,
    queue,
    runs,
    serve,
    train,
)
from workbench.commands.common import exit_with
from workbench.commands.remote import PROGRAM, remote_call, run_remotely
from workbench.errors import WorkbenchError
from workbench.storage.paths import ENVIRONMENT_VARIABLE, Home

app = typer.Typer(
    name="loraworkbench",
    help="Fine-tune a language model with LoRA or QLoRA from one terminal. Without a command the app opens.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_given: bool) -> None:
    if is_given:
        print(f"loraworkbench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home", envvar=ENVIRONMENT_VARIABLE, help="Folder for all state: runs, caches, socket, settings."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="USER@SERVER", help="Run the app or the command on that machine, over your ssh."
        ),
    ] = None,
    host_program: Annotated[
        str, typer.Option("--host-program", metavar="PATH", help="With --host: name or path of the program there.")
    ] = PROGRAM,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="With --host: run it there also if it has another version.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if host is None and (host_program != PROGRAM or any_version):
        raise WorkbenchError(
            "--host-program and --any-version belong to --host.", "Add --host user@server.", kind="bad_request"
        )
    context.obj = Home.find(home)
    os.environ[ENVIRONMENT_VARIABLE] = str(context.obj.root)
    if context.invoked_subcommand is None:
        from workbench.commands.open_app import open_app

        open_app(context.obj)


app.command()(demo.demo)
app.command()(models.models)
app.command()(inspect.inspect)
app.command()(estimate.estimate)
app.command()(data.data)
app.command()(presets.presets)
app.command()(train.train)
app.command()(attach.attach)
app.command()(control.control)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(mcp.mcp)
app.command()(evaluate.evaluate)
app.command()(judge.judge)
app.command()(evaluate.report)
app.add_typer(runs.app, name="runs")
app.command()(export.export)
app.command("import")(export.import_recipe)
app.command()(calibration.calibration)
app.command()(doctor.doctor)
app.add_typer(queue.app, name="queue")
app.add_typer(engine.app, name="engine")
app.add_typer(cache.app, name="cache")


def run(arguments: list[str]) -> None:
    """Run a command; an error is printed as a message with exit code 1, never as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for terminals that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        if call := remote_call(arguments):
            raise SystemExit(run_remotely(call))
        app(arguments, prog_name=PROGRAM)
    except Exception as error:
        commands = typer.main.get_group(app).commands
        command = next((argument for argument in arguments if argument in commands), "")
        exit_with(error, f"running `{f'loraworkbench {command}'.strip()}`", Home.find())
