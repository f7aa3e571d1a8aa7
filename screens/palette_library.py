"""Commands of the palette for what is on disk: presets, models, datasets, runs and pages of the docs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from screens.dialogs.doc_screen import DocScreen
from screens.dialogs.presets import load_preset
from screens.palette_commands import Command, settings_as_commands
from workbench.data.open_source import bundled_names
from workbench.models.catalog import catalog
from workbench.models.sources import local_models
from workbench.recipe.data_sources import source_as_typed, typed_source
from workbench.recipe.presets import describe_presets
from workbench.recipe.text import choosing_model
from workbench.runs.folder import all_runs
from workbench.runs.library.sources_used import sources_used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from screens.app import WorkbenchApp

_DOCS = Path(__file__).resolve().parents[1] / "docs"


def library_commands(app: WorkbenchApp) -> list[Command]:
    """Return the commands for all that is on disk. Reads many small files, so it runs in a thread."""
    return [*settings_as_commands(app), *_presets(app), *_models(app), *_datasets(app), *_runs(app), *_docs(app)]


def _presets(app: WorkbenchApp) -> Iterator[Command]:
    for preset in describe_presets(app.session.home):
        title = f"{preset.title} (yours)" if preset.own else preset.title
        yield Command(f"Recipe: {preset.name}", partial(load_preset, app, preset.name), title)


def _models(app: WorkbenchApp) -> Iterator[Command]:
    local = [facts.source for facts in local_models(app.session.home)]
    for source in dict.fromkeys((*local, *(entry.id for entry in catalog()))):
        where = "on this machine" if source in local else "in the catalog"
        yield Command(f"Model: {source}", partial(_use_model, app, source), f"Use this model, {where}", weight=0.5)


def _use_model(app: WorkbenchApp, source: str) -> None:
    app.set_recipe(choosing_model(app.session.recipe, source))


def _datasets(app: WorkbenchApp) -> Iterator[Command]:
    used = sources_used(app.session.home, lambda recipe: source_as_typed(recipe.data.source))
    for source in dict.fromkeys((*used, *bundled_names())):
        changes = {"data.source": typed_source(source)}
        where = "used before" if source in used else "bundled"
        yield Command(
            f"Data: {source}", partial(app.set_recipe, changes), f"Train on this dataset, {where}", weight=0.5
        )


def _runs(app: WorkbenchApp) -> Iterator[Command]:
    for run in all_runs(app.session.home):
        name = run.label.name or run.id
        yield Command(f"Run: {name}", partial(_show_run, app, run.id), f"Show this run in Runs: {run.id}", weight=0.4)


async def _show_run(app: WorkbenchApp, run: str) -> None:
    await app.action_show_tab("runs")
    if (pane := app.pane_in_front) is not None:
        pane.select_run(run)


def _docs(app: WorkbenchApp) -> Iterator[Command]:
    # A wheel has no docs.
    for page in sorted(_DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        headings = ", ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("## "))
        yield Command(f"Docs: {title}", partial(_show_page, app, page), headings, weight=0.3)


def _show_page(app: WorkbenchApp, page: Path) -> None:
    app.push_screen(DocScreen(page))
