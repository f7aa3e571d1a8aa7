"""``loraworkbench models``: what is on this machine, and what the catalog knows."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import (
    JsonOption,
    SetOption,
    amount,
    console,
    gibibytes,
    home_of,
    print_json,
    printable,
    recipe_from,
)
from workbench.errors import WorkbenchError
from workbench.estimate import Device, TraceStore
from workbench.estimate.adapter.suggested_fix import changes_text
from workbench.estimate.catalog_fit import METHODS, SurveyRow, settings_words, survey
from workbench.estimate.fit import fit_of
from workbench.estimate.memory_text import parse_memory
from workbench.estimate.peak import Peak
from workbench.machine.gpu import GpuSampler, computes_bfloat16
from workbench.models.catalog import catalog, catalog_entry
from workbench.models.sources import LocalModelFacts, local_models
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment
from workbench.storage.paths import Home


def models(
    context: typer.Context,
    fits: Annotated[
        str | None,
        typer.Option(
            metavar="MEMORY",
            help="What of the catalog a recipe can train in this much memory, such as 24GB; `here` for what is free on "
            "this machine's GPU.",
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="With --fits: a recipe file or preset.")] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List models: those on this machine, then the catalog; with --fits, what can be trained in so much memory."""
    if fits is not None:
        _show_what_fits(home_of(context), fits, recipe, assignments or [], as_json=as_json)
        return
    if recipe is not None or assignments:
        raise WorkbenchError("A recipe is priced with --fits only.", "Add --fits 24GB.", kind="bad_request")
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
                    "lack": model.lack,
                }
            )
        for entry in catalog():
            if entry.id not in on_disk:
                print_json({"source": entry.id, "where": "catalog", **vars(entry)})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "where", "size", "architecture", "licence"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=heading == "model")
    for model in here:
        architecture = model.facts.architecture if model.facts else ""
        _add(table, model.source, model.origin, amount(model.bytes), architecture, _licence(model))
    for entry in catalog():
        if entry.id not in on_disk:
            gated = ", gated" if entry.gated else ""
            _add(table, entry.id, "catalog", parameters(entry.parameters), entry.architecture, entry.licence + gated)
    console.print(table)


def _show_what_fits(home: Home, memory: str, name: str | None, assignments: list[str], *, as_json: bool) -> None:
    changes = dict(parse_assignment(text) for text in assignments)
    chosen = edit(recipe_from(home, name, None) if name else Recipe(), changes)
    gpu = next(iter(GpuSampler().sample()), None)
    free = _memory(memory, gpu.free_bytes if gpu else None)
    device = Device(bfloat16=gpu is None or computes_bfloat16(gpu))
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "size", *METHODS):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    changed: dict[str, list[str]] = {}
    for row in survey(chosen, device, TraceStore(home.cache / "traces"), free_bytes=free):
        if as_json:
            print_json(_survey_json(row, free))
        else:
            cells = (_verdict(row.peaks.get(method), free) for method in METHODS)
            name = row.source.rpartition("/")[2]
            _add(table, name + " *" * bool(row.changes), parameters(row.parameters), *cells)
            if row.changes:
                changed.setdefault(changes_text(row.changes), []).append(name)
    if not as_json:
        console.print(table)
        console.print(
            f"\nPeaks in GiB against {gibibytes(free)}: r {chosen.adapter.r}, "
            f"{', '.join(settings_words(chosen))}. ≈ by formula."
        )
        for words, names in changed.items():
            console.print(Text(f"* With {words}: {', '.join(names)}."))


def _memory(text: str, free_here: int | None) -> int:
    if text != "here":
        return parse_memory(text)
    if free_here is None:
        raise WorkbenchError(
            "This machine has no GPU whose free memory is known.",
            "Say how much it is: --fits 24GB.",
            kind="bad_request",
        )
    return free_here


def _verdict(peak: Peak | None, free: int) -> str:
    if peak is None:
        return "refused"
    about = "≈ " if peak.method == "closed-form" else ""
    word = {"does not fit": "no"}.get(verdict := fit_of(peak, free), verdict)
    return f"{about}{peak.device_bytes / 2**30:.1f} {word:<5}"


def _survey_json(row: SurveyRow, free: int) -> dict[str, object]:
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


def parameters(count: int) -> str:
    """``1.10 B parameters``, as models are called."""
    return f"{count / 1e9:.2f} B" if count >= 0.9995e9 else f"{count / 1e6:.0f} M"
