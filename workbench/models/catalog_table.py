"""The catalog as a table for the documentation: ``python -m workbench.models.catalog_table``."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from workbench.models.build_catalog import PublishedModel, published_models
from workbench.models.catalog import catalog_entry
from workbench.units import parameters

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made from presets/models/published.json: begin -->\n", "<!-- end -->\n"


def table() -> str:
    """All models, one row for those that share a configuration, under their families."""
    return "\n".join(_lines()) + "\n"


def page_with_table(page: str) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _lines() -> Iterator[str]:
    for family, group in groupby(published_models(), key=lambda facts: facts["family"]):
        yield from (
            "",
            f"### {family}",
            "| model | size | context | license | numbers from |",
            "|---|---:|---:|---|---|",
        )
        yield from map(_row, group)
    yield ""


def _row(facts: PublishedModel) -> str:
    entry = catalog_entry(facts["ids"][0])
    size = parameters(entry.parameters) if entry else ""
    context = f"{facts['context_length']:,}" if facts["context_length"] else "unlimited"
    license_text = (facts["licence"] or "unknown") + (", gated" if facts["gated"] else "")
    source = facts.get("source")
    origin = f"{source['repository']} `{source['path'].rpartition('/')[2]}` {source['commit'][:7]}" if source else "–"
    return f"| {', '.join(facts['ids'])} | {size} | {context} | {license_text} | {origin} |"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
