"""``loraworkbench models``: list the models on this machine and in the catalog, and which fit into memory."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.adapters.registry import size_words
from workbench.commands.common import (
    JsonOption,
    SetOption,
    console,
    errors,
    home_of,
    print_json,
    printable,
    recipe_from,
)
from workbench.errors import WorkbenchError
from workbench.estimate import TraceStore
from workbench.estimate.adapter.suggested_fix import changes_text
from workbench.estimate.by_method import METHODS
from workbench.estimate.catalog_fit import CatalogFit, catalog_fits, settings_text
from workbench.estimate.fit import fit_of
from workbench.estimate.memory_text import parse_memory
from workbench.estimate.peak import Peak
from workbench.machine.gpu import first_gpu
from workbench.machine.hardware import gpu_device
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.catalog import CatalogEntry, catalog, catalog_entry
from workbench.models.own_list import OwnList, OwnModel, own_list_file, own_models
from workbench.models.refreshed import RefreshedModel, refreshed_models
from workbench.models.refreshed import refresh as refresh_list
from workbench.models.sources import LocalModelFacts, local_models
from workbench.progress import Progress
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
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh",
            help="First read the newest models of the catalog's organizations from the hub (configurations only).",
        ),
    ] = False,
    recipe: Annotated[str | None, typer.Option(help="With --fits: a recipe file or preset.")] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List models on this machine, in your models.yaml and in the catalog; with --fits, those that fit into memory."""
    if fits is not None and refresh:
        raise WorkbenchError(
            "--fits lists the catalog only, --refresh adds models from the hub.",
            "Use one of them; `loraworkbench estimate <id>` estimates any model.",
            kind="bad_request",
        )
    if fits is not None:
        _show_what_fits(home_of(context), fits, recipe, assignments or [], as_json=as_json)
        return
    if recipe is not None or assignments:
        raise WorkbenchError("--recipe and --set work only with --fits.", "Add --fits 24GB.", kind="bad_request")
    home = home_of(context)
    if refresh:
        _refresh(home)
    own = own_models(home)
    for mistake in own.mistakes:
        _warn(mistake)
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "where", "size", "architecture", "license"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=heading == "model")
    for line in model_lines(home, own):
        if as_json:
            print_json(line.facts)
        else:
            _add(table, *line.cells)
    if not as_json:
        console.print(table)


@dataclass(frozen=True)
class ModelLine:
    """One model: as cells of the table, and as JSON."""

    cells: tuple[str, str, str, str, str]
    facts: Mapping[str, object]


def model_lines(home: Home, own: OwnList) -> Iterator[ModelLine]:
    """The models on this machine, then those of the user's list, of the catalog and of the hub; each model once."""
    seen: set[str] = set()
    for model in local_models(home):
        seen.add(model.source.casefold())
        yield _line_of_local(model)
    newer = refreshed_models(home)
    by_id = {model.id.casefold(): model for model in newer.models}
    listed = [_line_of_own(model, own_list_file(home).name, by_id) for model in own.models]
    listed += [_line_of_catalog(entry) for entry in catalog()]
    listed += [_line_of_refreshed(model, newer.day) for model in newer.models]
    for line in listed:
        if line.cells[0].casefold() not in seen:
            seen.add(line.cells[0].casefold())
            yield line


def _line_of_local(model: LocalModelFacts) -> ModelLine:
    architecture, licence = model.facts.architecture if model.facts else "", _licence(model)
    facts = {
        "source": model.source,
        "where": "here",
        "origin": model.origin,
        "folder": str(model.folder),
        "bytes": model.bytes,
        "architecture": architecture,
        "license": licence,
        "missing": model.missing,
    }
    return ModelLine((model.source, model.origin, file_size(model.bytes, 2), architecture, licence), facts)


def _line_of_own(model: OwnModel, file: str, newer: Mapping[str, RefreshedModel]) -> ModelLine:
    known = catalog_entry(model.source) or newer.get(model.source.casefold())
    size = parameters(known.parameters) if known and known.parameters else ""
    cells = (
        model.source,
        f"{file}:{model.line}",
        size,
        known.architecture if known else "",
        known.licence if known else "",
    )
    return ModelLine(cells, {"where": file, **asdict(model)})


def _line_of_catalog(entry: CatalogEntry) -> ModelLine:
    license_text = _license_text(entry.licence, entry.gated)
    cells = (entry.id, "catalog", parameters(entry.parameters), entry.architecture, license_text)
    return ModelLine(cells, {"source": entry.id, "where": "catalog", **_american(vars(entry))})


def _line_of_refreshed(model: RefreshedModel, day: str) -> ModelLine:
    size = parameters(model.parameters) if model.parameters else ""
    cells = (model.id, f"hub {day}", size, model.architecture, _license_text(model.licence, model.gated))
    return ModelLine(cells, {"source": model.id, "where": "hub", "read_on": day, **_american(asdict(model))})


def _american(facts: Mapping[str, object]) -> dict[str, object]:
    """The facts with the license under its American name."""
    return {"license" if name == "licence" else name: value for name, value in facts.items()}


def _refresh(home: Home) -> None:
    """Read the newest models; without a network, say so and keep the list of the last time."""
    with errors.status("reaching the hub") as status:

        def show(progress: Progress) -> None:
            status.update(Text(printable(f"{progress.phase} {progress.detail}")))

        try:
            new, failed = refresh_list(home, show)
        except WorkbenchError as error:
            if error.kind not in ("unreachable", "hub_error"):
                raise
            _warn(f"{error.message} {error.cure}")
            return
    for owner, reason in failed.items():
        _warn(f"{owner}: {reason}")
    errors.print(Text(f"Read from the hub: {len(new.models)} models that are not in the catalog."))


def _warn(text: str) -> None:
    errors.print(Text(printable(text), style="yellow"))


def _license_text(licence: str, gated: bool | None) -> str:
    return (licence or "unknown") + (", gated" if gated else "")


def _show_what_fits(home: Home, memory: str, name: str | None, assignments: list[str], *, as_json: bool) -> None:
    changes = dict(parse_assignment(text) for text in assignments)
    chosen = edit(recipe_from(home, name, None) if name else Recipe(), changes)
    gpu = first_gpu()
    free = _memory(memory, gpu.free_bytes if gpu else None)
    budget = MemoryBudget(gpu_device(gpu), free)
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
            f"\nPeaks in GiB against {gib(free, 2)}: {size_words(chosen.adapter)}, "
            f"{', '.join(settings_text(chosen))}. ≈ estimate, ±15 %."
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
