"""Takes ms-swift's datasets: names with parts and numbers of records, columns, and those for evaluation."""

import json
from collections.abc import Iterable
from pathlib import Path

from workbench.export.other_tools.imported_settings import ImportedSettings, listed, weighted
from workbench.export.other_tools.keys import resolve_path

# ms-swift's names of columns, and the part of a record that each holds.
_PARTS = {
    "messages": "messages", "conversations": "messages", "query": "prompt", "response": "reply", "system": "system",
    "history": "history", "tools": "tools", "label": "label", "chosen": "chosen", "rejected": "rejected",
    "rejected_response": "rejected", "instruction": "prompt", "input": "input", "output": "reply",
}  # fmt: skip


def take_datasets(imported: ImportedSettings, folder: Path) -> None:
    """Take the datasets, which ms-swift joins, or interleaves by ``interleave_prob``.

    A name that is not here is kept, so that a run downloads it or says what it lacks.
    """
    names = listed(imported.take("dataset", []))
    sources = [source for name in names for source in _sources(imported, name, folder)]
    columns = _columns(imported)
    if weights := listed(imported.take("interleave_prob", [])):
        imported.set_sources(weighted(sources, weights), str(imported.take("stopping_strategy", "first_exhausted")))
    else:
        imported.set_sources(sources)
    imported.ignore(["stopping_strategy"])
    if columns:
        imported.recipe["data.columns"] = columns
    if sampled := [name for name in names if _parts(name)[2]]:
        imported.lack("dataset", sampled, "the first so many records are read; ms-swift takes them at random")
    is_elsewhere = [not Path(str(source["source"])).exists() for source in sources]
    if any(is_elsewhere) and not imported.take("use_hf", False) and not all(name.startswith("HF::") for name in names):
        imported.lack("use_hf", False, "names are of ModelScope there; here they are looked up on the Hugging Face hub")
    if cached := imported.take("cached_dataset"):
        imported.lack("cached_dataset", cached, "tokens that ms-swift has written cannot be read; set data.source")
    for key in ("model_name", "model_author"):
        if value := imported.take(key):
            imported.lack(key, value, "placeholders in records, as {{NAME}} of swift/self-cognition, stay as they are")
    held_out = [_parts(name)[0] for name in listed(imported.take("val_dataset", []))]
    if held_out:
        imported.recipe["data.eval_fraction"] = 0.0
        imported.recipe.pop("data.eval_records", None)
    imported.check_held_out(held_out, [_parts(name)[0] for name in names])


def _sources(imported: ImportedSettings, name: str, folder: Path) -> Iterable[dict[str, object]]:
    """A dataset as sources: one, or one for each of its parts."""
    place, parts, count = _parts(name)
    found = resolve_path(place, folder)
    limit = {"split": f"train[:{count}]"} if count else {}
    if "all" in parts:
        imported.lack("dataset", name, "a source has one configuration; name each of them")
    return [{"source": f"{found}:{part}" if part else found, **limit} for part in parts or [""]]


def _parts(name: str) -> tuple[str, list[str], int]:
    """Place, subsets and number of records of ``HF::place:one/other#500``; 0 records are all."""
    if Path(name).exists():
        return name, [], 0
    hub, _, rest = name.rpartition("::")
    rest = rest if hub.lower() in ("", "hf", "ms") else name
    place, mark, count = rest.rpartition("#")
    if not mark or not count.isdecimal():
        place, count = rest, "0"
    if Path(place).exists():
        return place, [], int(count)
    place, _, subsets = place.partition(":")
    return place.strip(), [part.strip() for part in subsets.split("/") if part.strip()], int(count)


def _columns(imported: ImportedSettings) -> dict[str, str]:
    """The columns that are named, by part of a record: ``columns`` has a standard name for each."""
    given = imported.take("columns", {})
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = {"": given}
    named = given if isinstance(given, dict) else {}
    if unknown := {theirs: name for theirs, name in named.items() if name not in _PARTS}:
        imported.lack("columns", unknown)
    return {_PARTS[name]: str(theirs) for theirs, name in named.items() if name in _PARTS}
