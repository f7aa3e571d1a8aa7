"""A data set looked at before a run: the tokenizer alone, a first answer from a sample, then the exact one.

Only the model's tokenizer is needed, which is a few megabytes of what a run needs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.data.examples import find_examples
from workbench.data.facts import DataFacts, Example
from workbench.data.sources import Records, load_records, parts_elsewhere
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.token_store import TokenStore
from workbench.data.vocabulary import refuse_unknown_tokens
from workbench.errors import WorkbenchError
from workbench.failures.diagnose import diagnose
from workbench.models.hub import download_model
from workbench.models.local import describe_folder, has_tokenizer
from workbench.models.sources import fetch_config, fetch_model, find_config, local_path
from workbench.progress import Progress
from workbench.recipe.schema import DataSection, ModelSection, Recipe
from workbench.storage.paths import Home

# Some tenths of a second of tokenising, for a first answer within a second.
SAMPLED = 256

# Parts of sources, and their split, that this process was allowed to fetch: they may be looked at again.
_brought: set[tuple[str, str]] = set()

Report = Callable[[Progress], None]
Cancelled = Callable[[], bool]


def dataset_stats(
    home: Home,
    recipe: Recipe,
    *,
    fetch: bool = True,
    show: int = 3,
    report: Report = lambda progress: None,
    cancelled: Cancelled = bool,
) -> Iterator[DataFacts]:
    """The facts of a recipe's data: those of the first :data:`SAMPLED` records, and the exact ones if there are more.

    Args:
        fetch: bring tokenizer and data here if they are elsewhere; without it that is refused.
        show: records to give as examples.

    Raises:
        WorkbenchError: the tokenizer or the data cannot be had or read; kinds ``tokenizer_elsewhere`` and
            ``data_elsewhere`` where ``fetch`` would bring them; ``cancelled``.
    """
    records, template = open_data(home, recipe.model, recipe.data, fetch=fetch, report=report, cancelled=cancelled)
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
        # A run over these records has counted them all; what it did not keep is how they are shown.
        kept = TokenStore(records, template.with_system(recipe.data.system), recipe.data).facts(batch_size)
        exact = replace(kept, examples=facts.examples) if kept and len(facts.examples) == show else count(None)
        refuse_unknown_tokens(exact.largest_id, template.tokenizer, rows)
        yield exact


def _embedding_rows(home: Home, model: ModelSection) -> int | None:
    """Rows of the model's embedding, if its configuration is on this machine."""
    folder = find_config(home, model)
    return describe_folder(folder).vocabulary if folder is not None else None


def examples(home: Home, recipe: Recipe, start: int, count: int, search: str = "") -> list[Example]:
    """Records as they are fed, from the ``start``-th on, without fetching anything.

    Raises:
        WorkbenchError: as :func:`dataset_stats`.
    """
    records, template = open_data(home, recipe.model, recipe.data, fetch=False)
    return find_examples(records, template, recipe.data, start, count, search)


def open_data(
    home: Home,
    model: ModelSection,
    data: DataSection,
    *,
    fetch: bool = True,
    report: Report = lambda progress: None,
    cancelled: Cancelled = bool,
) -> tuple[Records, Template]:
    """The records, and the template bound to the model's tokenizer.

    Raises:
        WorkbenchError: as :func:`dataset_stats`.
    """
    elsewhere = [(part, data.split) for part in parts_elsewhere(data.source)]
    if not fetch and not _brought.issuperset(elsewhere):
        raise WorkbenchError(
            f"{elsewhere[0][0]} is not on this machine.", "Give a local path, or download it.", kind="data_elsewhere"
        )
    folder = _tokenizer_folder(home, model, fetch, report, cancelled)
    report(Progress(phase="loading the tokenizer", detail=model.source))
    template = Template.for_model(_tokenizer(folder, model.trust_remote_code), data.template, data.system)
    report(Progress(phase="opening the dataset", detail=data.source))
    records = load_records(data, home)
    _brought.update(elsewhere)
    return records, template


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
        folder = download_model(model.source, model.revision, report, cancelled, config_only=True).folder
    # Refuses a folder that lacks its tokenizer, in the words that a run would use.
    return folder if has_tokenizer(folder) else fetch_model(home, model, report, cancelled).folder


@lru_cache(maxsize=2)
def _tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise diagnose(error, "reading the tokenizer") from error
