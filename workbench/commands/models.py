"""``loraworkbench models``: what is on this machine, and what the catalog knows."""

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, amount, console, home_of, print_json, printable
from workbench.models.catalog import catalog, catalog_entry
from workbench.models.sources import LocalModelFacts, local_models


def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List models: those on this machine first, then the catalog."""
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


def _licence(model: LocalModelFacts) -> str:
    entry = catalog_entry(model.source)
    return model.license or (entry.licence if entry else "")


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))


def parameters(count: int) -> str:
    """``1.10 B parameters``, as models are called."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
