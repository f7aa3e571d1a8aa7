"""Computes the statistics of a recipe's dataset before a run: first of a sample, then of all records.

This needs only the model's tokenizer (a few megabytes), not its weights.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.columns import FoundColumns, find_columns
from workbench.data.facts import DataFacts, Example
from workbench.data.open_source import needs_hub, remote_sources
from workbench.data.sources import Records, load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.examples import find_examples
from workbench.data.tokens.store import TokenStore
from workbench.data.tokens.vocabulary import refuse_unknown_tokens
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.models.local import describe_folder, has_tokenizer
from workbench.models.sources import fetch_config, fetch_model, fetch_texts, find_config, local_path
from workbench.models.tokenizers import load_tokenizer
from workbench.progress import Cancelled, Progress, Report, never_cancelled
from workbench.recipe.data_sources import source_parts, source_text
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.sections.model import ModelSection
from workbench.storage.paths import Home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Records in the first sample: tokenizing them takes some tenths of a second.
SAMPLED = 256

# Remote sources, with their split, that this process has been allowed to fetch: it may open them again.
_fetched: set[tuple[str, str]] = set()


def dataset_stats(
    home: Home,
    recipe: Recipe,
    *,
    fetch: bool = True,
    show: int = 3,
    report: Report = lambda progress: None,
    cancelled: Cancelled = never_cancelled,
) -> Iterator[DataFacts]:
    """Yield the statistics of the first :data:`SAMPLED` records, and then, if there are more, of all records.

    Args:
        fetch: download the tokenizer and the data if necessary.
        show: number of records to include as examples.

    Raises:
        WorkbenchError: the tokenizer or the data cannot be read; kinds ``tokenizer_elsewhere`` and ``data_elsewhere``
            if they would have to be downloaded and ``fetch`` is False; ``cancelled``.
    """
    records, template = open_data(home, recipe, fetch=fetch, report=report, cancelled=cancelled)
    batch_size = recipe.training.largest_micro_batch

    def count(limit: int | None) -> DataFacts:
        return data_facts(
            records,
            template,
            recipe.data,
            batch_size=batch_size,
            show=show,
            limit=limit,
            report=report if limit is None else None,
            cancelled=cancelled,
        )

    rows = _embedding_rows(home, recipe.model)
    facts = count(SAMPLED)
    refuse_unknown_tokens(facts.largest_id, template.tokenizer, rows)
    yield facts
    if not facts.exact:
        # A run over the same records has cached their statistics, but without examples.
        cached = TokenStore(records, template.with_system(recipe.data.system), recipe.data).facts(batch_size)
        exact = replace(cached, examples=facts.examples) if cached and len(facts.examples) == show else count(None)
        refuse_unknown_tokens(exact.largest_id, template.tokenizer, rows)
        yield exact


def _embedding_rows(home: Home, model: ModelSection) -> int | None:
    """Rows of the model's embedding, if its configuration is on this machine; None if it gets as many as needed."""
    if model.resize_embeddings:
        return None
    folder = find_config(home, model)
    return describe_folder(folder).vocabulary if folder is not None else None


def examples(
    home: Home, recipe: Recipe, start: int, count: int, search: str = "", *, invalid: bool = False
) -> list[Example]:
    """Formatted training text of the records from ``start`` on; see :func:`find_examples`. Downloads nothing.

    Raises:
        WorkbenchError: as :func:`dataset_stats`.
    """
    records, template = open_data(home, recipe, fetch=False)
    return find_examples(records, template, recipe.data, start, count, search, invalid=invalid)


def columns(recipe: Recipe) -> FoundColumns:
    """The columns of a recipe's data. Downloads nothing.

    Raises:
        WorkbenchError: the source cannot be read, or is not on this machine.
    """
    _refuse_elsewhere(recipe.data)
    return find_columns(recipe.data, recipe.objective.spec.shown_as)


def _remote(data: DataSection) -> list[tuple[str, str]]:
    """The sources that are not on this machine, each with its split."""
    elsewhere = [name for name in remote_sources(data.source) if needs_hub(name)]
    return [(part.name, part.split) for part in source_parts(data) if part.name in elsewhere]


def _refuse_elsewhere(data: DataSection) -> None:
    """Raise WorkbenchError if a part of the source was never opened here and would be downloaded."""
    remote = [name for name, split in _remote(data) if (name, split) not in _fetched]
    if remote:
        raise WorkbenchError(
            f"{remote[0]} is not on this machine.", "Give a local path, or download it.", kind="data_elsewhere"
        )


def open_data(
    home: Home,
    recipe: Recipe,
    *,
    fetch: bool = True,
    report: Report = lambda progress: None,
    cancelled: Cancelled = never_cancelled,
) -> tuple[Records, Template]:
    """Open a recipe's dataset, and its template with the model's tokenizer.

    Raises:
        WorkbenchError: as :func:`dataset_stats`.
    """
    data, kind = recipe.data, recipe.objective.spec.records
    if not fetch:
        _refuse_elsewhere(data)
    absent = remote_sources(data.source)
    if absent and not any(map(needs_hub, absent)):
        load_records(data, home, kind=kind)  # refuses the path that does not exist, before the tokenizer is asked for
    template = open_template(home, recipe.model, data, fetch=fetch, report=report, cancelled=cancelled)
    report(Progress(phase="opening the dataset", detail=source_text(data.source)))
    records = load_records(data, home, kind=kind)
    _fetched.update(_remote(data))
    return records, template


def open_template(
    home: Home,
    model: ModelSection,
    data: DataSection,
    *,
    fetch: bool = True,
    report: Report = lambda progress: None,
    cancelled: Cancelled = never_cancelled,
) -> Template:
    """A recipe's template with the model's tokenizer.

    Raises:
        WorkbenchError: as :func:`dataset_stats`.
    """
    folder = _tokenizer_folder(home, model, fetch, report, cancelled)
    report(Progress(phase="loading the tokenizer", detail=model.source))
    return Template.for_model(_tokenizer(folder, model.trust_remote_code), data.template, data.system)


def _tokenizer_folder(home: Home, model: ModelSection, fetch: bool, report: Report, cancelled: Cancelled) -> Path:
    folder = find_config(home, model)
    if folder is not None and has_tokenizer(folder):
        return folder
    if not fetch:
        raise WorkbenchError(
            f"The tokenizer of {model.source} is not on this machine.",
            "Download the model or its tokenizer.",
            kind="tokenizer_elsewhere",
        )
    if folder is None:
        folder = fetch_config(home, model, report, cancelled)
    elif local_path(model.source) is None:
        folder = fetch_texts(home, model, report, cancelled)
    # For a folder without a tokenizer, fetch_model raises the error that a run would raise.
    return folder if has_tokenizer(folder) else fetch_model(home, model, report, cancelled).folder


@lru_cache(maxsize=2)
def _tokenizer(folder: Path, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    try:
        return load_tokenizer(folder, trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise diagnose(error, "reading the tokenizer") from error
