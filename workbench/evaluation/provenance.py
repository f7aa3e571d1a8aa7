"""Where a run's adapter comes from: base, data, settings, versions, figures; from recipe, journal and files.

What is published with an export names files and folders of this machine by their last part only.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from workbench import __version__
from workbench.data.sources import bundled_names
from workbench.models.catalog import catalog_entry
from workbench.models.gguf import ConversionOrigin, read_origin
from workbench.models.sources import LocalModel
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.events import Eval
from workbench.runs.folder import RunFolder
from workbench.runs.replay import Replay, deviation_text
from workbench.runs.summary import RunSummary
from workbench.storage.folders import files_below

_BUNDLED = Path(__file__).resolve().parents[2] / "presets" / "datasets"
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_BLOCK = 1 << 22
_FRONT_MATTER = 100_000


@dataclass(frozen=True)
class BaseFacts:
    """The base model as it is on this machine now. ``revision``: its commit on the hub, where it came from there."""

    source: str
    origin: str
    revision: str | None = None
    licence: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class DataFile:
    """One source of records; ``sha256`` is empty for one that is not a file of this machine."""

    name: str
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Provenance:
    """Everything that a model card tells. ``recipe`` is fit to be published."""

    run: str
    base: BaseFacts
    data: tuple[DataFile, ...]
    recipe: dict[str, Any]
    summary: RunSummary
    precision: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    evaluations: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain data, as it is written into ``export.json``."""
        summary = self.summary
        return {
            "run": self.run,
            "exported_with": {"loraworkbench": __version__},
            "base": asdict(self.base),
            "data": [asdict(file) for file in self.data],
            "seed": self.recipe["training"]["seed"],
            "recipe": self.recipe,
            "versions": self.versions,
            "hardware": self.hardware,
            "precision": self.precision,
            "records": self.counts,
            "changed_in_mid_run": list(self.changes),
            "figures": {
                "state": summary.state,
                "steps": summary.step,
                "tokens": summary.tokens,
                "loss": summary.loss,
                "held_out_perplexity": summary.perplexity,
                "evaluations": list(self.evaluations),
                "predicted_peak": summary.predicted_peak,
                "measured_peak": summary.measured_peak,
            },
        }


def provenance_of(
    run: RunFolder, recipe: Recipe, local: LocalModel | None, report: Callable[[str, float], None]
) -> Provenance:
    """Gather it; files of records are read once for their checksum.

    Args:
        report: told the name of the file that is read and how much of it was, 0 to 1.
    """
    replay = Replay.of(run.journal)
    summary = replay.summary
    summary.settle()
    names = ("base", "compute_dtype", "adapter_dtype", "trainable_parameters", "padding_free")
    precision = {name: replay.facts.get(name) for name in names} if replay.facts.get("compute_dtype") else {}
    return Provenance(
        run=run.id,
        base=base_facts(recipe, local),
        data=tuple(_data_file(part, report) for part in _parts(recipe.data.source)),
        recipe=fit_to_publish(recipe).as_dict(),
        summary=summary,
        evaluations=tuple(_evaluation(one) for one in replay.evaluations),
        changes=tuple(map(deviation_text, replay.deviations)),
        precision=precision,
        counts=replay.facts.get("counts") or {},
        versions=replay.started.versions,
        hardware=replay.started.hardware,
    )


def _evaluation(event: Eval) -> dict[str, Any]:
    names = ("step", "loss", "perplexity", "token_accuracy", "records", "tokens")
    return {name: getattr(event, name) for name in names}


def base_facts(recipe: Recipe, local: LocalModel | None) -> BaseFacts:
    """The base by the name that others know it by, its revision, and its licence where a file or the catalog tells."""
    source = recipe.model.source
    name = public_name(source)
    if local is None:
        return BaseFacts(name, "missing", recipe.model.revision, _catalog_licence(source))
    origin = read_origin(local.folder) or ConversionOrigin()
    licence = _card_licence(local.folder) or origin.license or _catalog_licence(source)
    known = licence if _LICENCE.fullmatch(licence) else ""
    return BaseFacts(name, local.origin, local.revision, known, origin.sha256)


def fit_to_publish(recipe: Recipe) -> Recipe:
    """The recipe without this machine's folders."""
    changes: dict[str, Any] = {
        "model.source": public_name(recipe.model.source),
        "data.source": " + ".join(_with_weight(part) for part in _parts(recipe.data.source)),
        "output.dir": None,
    }
    if "{{" not in recipe.data.template and "{%" not in recipe.data.template:
        changes["data.template"] = public_name(recipe.data.template)
    return edit(recipe, changes)


def public_name(source: str) -> str:
    """A hub id or a name as it is; of a path on this machine the last part."""
    path = Path(source).expanduser()
    is_path = path.is_absolute() or source.startswith((".", "~")) or path.exists()
    return (path.name or "folder") if is_path else source


def _with_weight(part: str) -> str:
    name, star, weight = part.rpartition("*")
    return f"{public_name(name.strip())}*{weight}" if star else public_name(part)


def _parts(source: str) -> list[str]:
    return [source] if Path(source).expanduser().exists() else [part.strip() for part in re.split(r"\s\+\s", source)]


def _data_file(part: str, report: Callable[[str, float], None]) -> DataFile:
    name = part.rpartition("*")[0].strip() if "*" in part and not Path(part).expanduser().exists() else part
    path = _BUNDLED / f"{name}.jsonl" if name in bundled_names() else Path(name).expanduser()
    if not path.exists():
        return DataFile(public_name(part))
    files = sorted(files_below(path)) if path.is_dir() else [(path, path.stat())]
    total = sum(found.st_size for _, found in files)
    digest, done = hashlib.sha256(), 0
    for file, found in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path)}\0{found.st_size}\0".encode("utf-8", "surrogateescape"))
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
                done += len(block)
                report(public_name(part), done / max(total, 1))
    return DataFile(public_name(part), total, digest.hexdigest())


def _card_licence(folder: Path) -> str:
    """``license`` of the front matter of a model's card, where the card was downloaded with it."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            head = file.read(_FRONT_MATTER)
        match = re.match(r"---\s*\n(.*?)\n---\s*\n", head, re.DOTALL)
        facts = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return str(facts.get("license") or "") if isinstance(facts, dict) else ""


def _catalog_licence(source: str) -> str:
    entry = catalog_entry(source)
    return entry.licence if entry else ""
