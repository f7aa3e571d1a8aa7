"""``loraworkbench export`` exports a run for other programs; ``import`` converts another tool's configuration."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from workbench.commands.common import (
    BaseOption,
    JsonOption,
    console,
    errors,
    home_of,
    print_json,
    printable,
    recipe_from,
)
from workbench.engine.client.requests import here
from workbench.errors import WorkbenchError
from workbench.export.bare import is_bare_adapter, run_of_adapter
from workbench.export.plan import Plan, plan_export
from workbench.export.request import TARGETS, WITHOUT_WEIGHTS, Exported, Request, target_named
from workbench.export.run import export_run
from workbench.export.untrained import folder_of_recipe
from workbench.progress import Progress as ProgressReport
from workbench.recipe.text import to_yaml
from workbench.runs.folder import RunFolder, find_run
from workbench.storage.paths import Home
from workbench.units import file_size, rough_time


class WeightKind(StrEnum):
    """Whether a server or the hub gets the adapter alone or a merged model."""

    adapter = "adapter"
    merged = "merged"


class NumberType(StrEnum):
    """The number type of a GGUF file's matrices."""

    f16 = "f16"
    q8_0 = "q8_0"
    q5_k_m = "q5_k_m"
    q4_k_m = "q4_k_m"


def export(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            help="A run's id, id prefix or folder, or an adapter folder. For "
            f"{', '.join(WITHOUT_WEIGHTS)} also a recipe file or a preset."
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Target folder. Nothing is written elsewhere.")],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help=f"One of {', '.join(TARGETS)}.")],
    weights: Annotated[
        WeightKind, typer.Option(help="For vllm, tgi and hub: the adapter alone, or merged into the base.")
    ] = WeightKind.adapter,
    number_type: Annotated[
        NumberType,
        typer.Option(
            "--type", case_sensitive=False, help="For gguf and ollama: 16 bits a weight, 8.5, about 5.7, or about 4.9."
        ),
    ] = NumberType.f16,
    repo: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="For hub: the repository.")] = None,
    public: Annotated[bool, typer.Option("--public", help="For hub: make the repository public.")] = False,
    base: BaseOption = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="For gguf and ollama: download llama.cpp's converter if it is missing, without asking."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier export in DIR.")] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show size, disk space and time; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a run. Weights are merged in a separate process and checked against the trained ones."""
    home = home_of(context)
    target = target_named(to)
    request = Request(
        target,
        folder.expanduser().resolve(),
        weights.value,
        number_type.value,
        repo,
        public,
        force,
        here(base or ""),
        download,
    )
    with exported_source(home, run, request) as found:
        _export(home, found, request, plan_only=plan_only, as_json=as_json)


@contextmanager
def exported_source(home: Home, name: str, request: Request) -> Iterator[RunFolder]:
    """The run of this name; else, within, a folder for the adapter folder, recipe file or preset of this name.

    Raises:
        WorkbenchError: there is neither.
    """
    from workbench.recipe.presets import preset_names

    if is_bare_adapter(name):
        with run_of_adapter(home, name, request.base, request.target) as folder:
            yield folder
        return
    is_recipe = Path(name).suffix in (".yaml", ".yml") or name in preset_names(home)
    try:
        found = find_run(home, name)
    except WorkbenchError as error:
        if error.kind != "run_not_found" or not is_recipe:
            raise
    else:
        yield found
        return
    with folder_of_recipe(recipe_from(home, name, None), request.target) as folder:
        yield folder


def _export(home: Home, found: RunFolder, request: Request, *, plan_only: bool, as_json: bool) -> None:
    plan = plan_export(home, found, request)
    if plan_only:
        if as_json:
            print_json(plan.as_json())
        else:
            _show_plan(plan)
        return
    if as_json:
        print_json(export_run(home, found, request, lambda progress: None, bool).as_json())
        return
    _show_plan(plan)
    if plan.download and not request.download and sys.stdin.isatty():
        question = f"Download llama.cpp's converter and library ({file_size(plan.download, 2)})?"
        request = replace(request, download=typer.confirm(question, default=True, err=True))
    _show(_with_bar(home, found, request))


def import_recipe(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="A YAML file of Axolotl, LLaMA-Factory, TRL's command line or torchtune, ms-swift's arguments (a "
            "shell script, YAML or JSON), a notebook or Python script for Unsloth or TRL, or PEFT's "
            "adapter_config.json or its folder."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the recipe to this new file instead of printing it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert another tool's file to a recipe; list unsupported settings."""
    from workbench.export.other_tools.imported import import_settings

    recipe, lacking = import_settings(file.expanduser())
    if output is not None:
        try:
            with output.expanduser().open("x", encoding="utf-8") as stream:
                stream.write(to_yaml(recipe))
        except OSError as error:
            raise WorkbenchError(
                f"Cannot write {output}: {error.strerror or error}.", "Give a new file name."
            ) from None
    if as_json:
        print_json({"recipe": recipe.as_dict(), "without_counterpart": lacking})
        return
    if output is None:
        # Not through the console, which would wrap long lines.
        sys.stdout.write(printable(to_yaml(recipe)))
    for words in lacking:
        errors.print(Text("Not supported: ", "yellow"), Text(printable(words)), sep="")


def _show_plan(plan: Plan) -> None:
    parts = [
        f"{file_size(plan.size, 2)} to write",
        f"{file_size(plan.free, 2)} free on the disk",
        f"about {rough_time(plan.seconds)}",
    ]
    if plan.memory:
        parts.insert(2, f"{file_size(plan.memory, 2)} RAM, {file_size(plan.free_memory, 2)} free")
    if plan.download:
        parts.append(f"{file_size(plan.download, 2)} to download: llama.cpp's converter and library")
    console.print(Text(" · ".join(parts), "dim"))


def _with_bar(home: Home, run: RunFolder, request: Request) -> Exported:
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=None, detail="")

        def show(progress: ProgressReport) -> None:
            total = None if progress.fraction is None else 1.0
            bar.update(
                task,
                description=printable(progress.phase),
                total=total,
                completed=progress.fraction or 0.0,
                detail=printable(progress.detail)[:60],
            )

        return export_run(home, run, request, show, bool)


def _show(made: Exported) -> None:
    for name, size in made.files:
        console.print(Text(f"  {file_size(size, 2):>10}  {printable(name)}"))
    if made.check:
        console.print(Text(printable(made.check)))
    for notice in made.notices:
        console.print(Text("! ", "yellow"), Text(printable(notice)), sep="")
    console.print(Text(f"Exported to {printable(str(made.folder))}."))
    if made.url:
        console.print(Text(printable(made.url), "bold"))
    if made.command:
        # Not through the console: a wrapped command cannot be copied.
        sys.stdout.write(printable(f"cd {shlex.quote(str(made.folder))} && {made.command}") + "\n")
