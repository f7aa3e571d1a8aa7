"""Collects the provenance of a run's adapter (base, data, settings, versions, results) for model cards and reports.

As it is published with exports, files and folders of this machine are named by the last part of their path only.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench import __version__
from workbench.data.open_source import source_path
from workbench.evaluation.report_data import BaseData, EvaluationData, FileData, PrecisionData, ProvenanceData
from workbench.models.catalog import catalog_entry
from workbench.models.gguf import ConversionOrigin, read_origin
from workbench.models.model_card import card_license
from workbench.models.sources import LocalModel
from workbench.recipe.data_sources import renamed, source_names
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
from workbench.runs.events import Eval
from workbench.runs.folder import RunFolder
from workbench.runs.replay import Replay, deviation_text
from workbench.runs.summary import RunSummary
from workbench.storage.folders import files_below

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class BaseFacts:
    """The base model as it is on this machine.

    ``revision`` is its commit on the hub, None if not from there; ``subfolder`` its folder inside the repository.
    """

    source: str
    origin: str
    revision: str | None = None
    licence: str = ""
    sha256: str = ""
    subfolder: str = ""

    def as_json(self) -> BaseData:
        return BaseData(
            source=self.source,
            origin=self.origin,
            revision=self.revision,
            licence=self.licence,
            sha256=self.sha256,
            subfolder=self.subfolder,
        )


@dataclass(frozen=True)
class DataFile:
    """One source of records; ``sha256`` is empty if it is not a local file."""

    name: str
    bytes: int = 0
    sha256: str = ""

    def as_json(self) -> FileData:
        return FileData(name=self.name, bytes=self.bytes, sha256=self.sha256)


@dataclass(frozen=True)
class Provenance:
    """Everything that a model card contains.

    Attributes:
        recipe: without local paths. precision: dtypes and sizes from the journal.
        counts: record and token counts. evaluations: those made during the run.
        changes: deviations from the recipe during the run, as text.
        has_run: whether a run of this home made the adapter; else only its base is known.
    """

    run: str
    base: BaseFacts
    data: tuple[DataFile, ...]
    recipe: Recipe
    summary: RunSummary
    precision: PrecisionData
    counts: Mapping[str, object] = field(default_factory=dict)
    evaluations: tuple[EvaluationData, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, object] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    has_run: bool = True

    def as_json(self) -> ProvenanceData:
        """The content of ``export.json``."""
        summary = self.summary
        return {
            "run": self.run,
            "exported_with": {"loraworkbench": __version__},
            "base": self.base.as_json(),
            "data": [file.as_json() for file in self.data],
            "seed": self.recipe.training.seed,
            "recipe": self.recipe.model_dump(),
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
    """Collect the provenance of a run; data files are read once for their checksum.

    Args:
        local: the base model on this machine; None if it is missing.
        report: called with the name of the file being read and the progress, 0 to 1.
    """
    # An adapter without a journal was made elsewhere; a recipe that was not trained has neither.
    has_run = run.journal.is_file() or not run.adapter.is_dir()
    replay = Replay.of(run.journal)
    summary = replay.summary
    summary.settle()
    facts = replay.facts
    folders = _folders_of(recipe)
    precision = PrecisionData(
        base=facts.base,
        compute_dtype=facts.compute_dtype,
        adapter_dtype=facts.adapter_dtype,
        trainable_parameters=facts.trainable_parameters,
        padding_free=facts.padding_free,
        batches=str((facts.conditions or {}).get("batches") or "") or None,
    )
    return Provenance(
        run=run.id,
        base=base_facts(recipe, local),
        data=tuple(_data_file(name, report) for name in source_names(recipe.data.source)) if has_run else (),
        recipe=without_local_paths(recipe),
        summary=summary,
        evaluations=tuple(_evaluation(one) for one in replay.evaluations),
        changes=tuple(map(deviation_text, replay.deviations)),
        precision=precision if facts.compute_dtype else {},
        counts={name: _without_folders(value, folders) for name, value in (facts.counts or {}).items()},
        versions=replay.started.versions,
        hardware=replay.started.hardware,
        has_run=has_run,
    )


def _evaluation(event: Eval) -> EvaluationData:
    return EvaluationData(
        step=event.step,
        loss=event.loss,
        perplexity=event.perplexity,
        token_accuracy=event.token_accuracy,
        accuracy=event.accuracy,
        macro_f1=event.macro_f1,
        records=event.records,
        tokens=event.tokens,
    )


def base_facts(recipe: Recipe, local: LocalModel | None) -> BaseFacts:
    """The base model's public name, its revision, and its license from its files or the catalog."""
    source = recipe.model.source
    name = public_name(source)
    if local is None:
        return BaseFacts(name, "missing", recipe.model.revision, _catalog_licence(source))
    origin = read_origin(local.folder) or ConversionOrigin()
    licence = card_license(local.folder) or origin.license or _catalog_licence(source)
    known = licence if _LICENCE.fullmatch(licence) else ""
    return BaseFacts(name, local.origin, local.revision, known, origin.sha256, local.subfolder)


def without_local_paths(recipe: Recipe) -> Recipe:
    """The recipe with this machine's paths reduced to file names."""
    changes: dict[str, object] = {
        "model.source": public_name(recipe.model.source),
        "data.source": renamed(recipe.data.source, public_name),
        "output.dir": None,
    }
    if "{{" not in recipe.data.template and "{%" not in recipe.data.template:
        changes["data.template"] = public_name(recipe.data.template)
    return edit(recipe, changes)


def _folders_of(recipe: Recipe) -> tuple[str, ...]:
    """The folders that the recipe's local data is in, as records name their places: with a slash at the end."""
    paths = (Path(name).expanduser() for name in source_names(recipe.data.source))
    local = [path for path in paths if path.is_absolute() or path.exists()]
    return tuple({f"{folder}/" for path in local for folder in (path.parent, path.absolute().parent)} - {"./", "//"})


def _without_folders(value: object, folders: tuple[str, ...]) -> object:
    """JSON data whose texts name files of these folders by their names alone."""
    if isinstance(value, dict):
        return {_without_folders(key, folders): _without_folders(inner, folders) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner, folders) for inner in value]
    if isinstance(value, str):
        for folder in folders:
            value = value.replace(folder, "")
    return value


def public_name(source: str) -> str:
    """A hub id or name unchanged; the last part of a local path."""
    path = Path(source).expanduser()
    is_path = path.is_absolute() or source.startswith((".", "~")) or path.exists()
    return (path.name or "folder") if is_path else source


def _data_file(name: str, report: Callable[[str, float], None]) -> DataFile:
    path = source_path(name)
    if path is None:
        return DataFile(public_name(name))
    files = sorted(files_below(path)) if path.is_dir() else [(path, path.stat())]
    total = sum(stat.st_size for _, stat in files)
    digest, done = hashlib.sha256(), 0
    for file, stat in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path)}\0{stat.st_size}\0".encode("utf-8", "surrogateescape"))
        with file.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                report(public_name(name), done / max(total, 1))
    return DataFile(public_name(name), total, digest.hexdigest())


def _catalog_licence(source: str) -> str:
    entry = catalog_entry(source)
    return entry.licence if entry else ""
