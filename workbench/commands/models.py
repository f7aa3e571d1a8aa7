"""``loraworkbench models``: list the models on this machine and in the catalog, and which fit into memory."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    home_of,
    print_json,
    printable,
    recipe_from,
)
from workbench.errors import WorkbenchError
from workbench.estimate import TraceStore
from workbench.estimate.adapter.suggested_fix import changes_text
from workbench.estimate.by_method import METHODS
from workbench.estimate.catalog_fit import CatalogFit, catalog_fits, settings_words
from workbench.estimate.fit import fit_of
from workbench.estimate.memory_text import parse_memory
from workbench.estimate.peak import Peak
from workbench.machine.device import Device
from workbench.machine.gpu import computes_bfloat16, first_gpu
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import catalog, catalog_entry
from workbench.models.sources import LocalModelFacts, local_models
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment
from workbench.storage.paths import Home
from workbench.units import file_size, gib, gib_number, parameters


def models(
    context: typer.Context,
    fits: Annotated[
        str | None,
        typer.Option(
            metavar="MEMORY",
            help="List the catalog models that a recipe can train in this much memory, such as 24GB; "
            "`here`: this GPU's free memory.",
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="With --fits: a recipe file or preset.")] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List models on this machine and in the catalog; with --fits, those that can be trained in an amount of memory."""
    if fits is not None:
        _show_what_fits(home_of(context), fits, recipe, assignments or [], as_json=as_json)
        return
    if recipe is not None or assignments:
        raise WorkbenchError("--recipe and --set work only with --fits.", "Add --fits 24GB.", kind="bad_request")
    here = local_models(home_of(context))
    on_disk = {model.source for model in here}
    if as_json:
        for model in here:
            print_json(
                {
                    "source": model.source,
                    "where": "here",
                    "origin": model.origin,
                    "folder": str(model.folder),
                    "bytes": model.bytes,
                    "architecture": model.facts.architecture if model.facts else "",
                    "licence": _licence(model),
                    "lack": model.missing,
                }
            )
        for entry in catalog():
            if entry.id not in on_disk:
                print_json({"source": entry.id, "where": "catalog", **vars(entry)})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "where", "size", "architecture", "license"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=heading == "model")
    for model in here:
        architecture = model.facts.architecture if model.facts else ""
        _add(table, model.source, model.origin, file_size(model.bytes, 2), architecture, _licence(model))
    for entry in catalog():
        if entry.id not in on_disk:
            gated = ", gated" if entry.gated else ""
            _add(table, entry.id, "catalog", parameters(entry.parameters), entry.architecture, entry.licence + gated)
    console.print(table)


def _show_what_fits(home: Home, memory: str, name: str | None, assignments: list[str], *, as_json: bool) -> None:
    changes = dict(parse_assignment(text) for text in assignments)
    chosen = edit(recipe_from(home, name, None) if name else Recipe(), changes)
    gpu = first_gpu()
    free = _memory(memory, gpu.free_bytes if gpu else None)
    budget = MemoryBudget(Device(bfloat16=gpu is None or computes_bfloat16(gpu)), free)
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "size", *METHODS):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    changed: dict[str, list[str]] = {}
    for row in catalog_fits(chosen, budget, TraceStore(home.cache / "traces")):
        if as_json:
            print_json(_catalog_fit_json(row, free))
        else:
            cells = (_verdict(row.peaks.get(method), free) for method in METHODS)
            name = row.source.rpartition("/")[2]
            _add(table, name + " *" * bool(row.changes), parameters(row.parameters), *cells)
            if row.changes:
                changed.setdefault(changes_text(row.changes), []).append(name)
    if not as_json:
        console.print(table)
        console.print(
            f"\nPeaks in GiB against {gib(free, 2)}: r {chosen.adapter.r}, "
            f"{', '.join(settings_words(chosen))}. ≈ estimate, ±15 %."
        )
        for words, names in changed.items():
            console.print(Text(f"* with {words}: {', '.join(names)}."))


def _memory(text: str, free_here: int | None) -> int:
    if text != "here":
        return parse_memory(text)
    if free_here is None:
        raise WorkbenchError(
            "The free GPU memory of this machine is unknown.",
            "Give an amount: --fits 24GB.",
            kind="bad_request",
        )
    return free_here


def _verdict(peak: Peak | None, free: int) -> str:
    if peak is None:
        return "refused"
    about = "≈ " if peak.method == "closed-form" else ""
    word = {"does not fit": "no"}.get(verdict := fit_of(peak, free), verdict)
    return f"{about}{gib_number(peak.device_bytes, 1)} {word:<5}"


def _catalog_fit_json(row: CatalogFit, free: int) -> dict[str, object]:
    return {
        "source": row.source,
        "parameters": row.parameters,
        "changes": dict(row.changes),
        "methods": {
            name: {
                "peak_bytes": peak.device_bytes,
                "method": peak.method,
                "fits": fit_of(peak, free) != "does not fit",
                "fit": fit_of(peak, free),
            }
            for name, peak in row.peaks.items()
        },
    }


def _licence(model: LocalModelFacts) -> str:
    entry = catalog_entry(model.source)
    return model.license or (entry.licence if entry else "")


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))
