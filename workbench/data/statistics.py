"""Computes a dataset's statistics without storing its tokens."""

from itertools import islice

from workbench.data.collector import StatisticsCollector
from workbench.data.facts import DataFacts
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.data.tokens.examples import example_of
from workbench.data.tokens.samples import encode_samples
from workbench.progress import Cancelled, Report, never_cancelled
from workbench.recipe.sections.data import DataSection


def data_facts(
    records: Records,
    template: Template,
    data: DataSection,
    *,
    batch_size: int = 4,
    show: int = 3,
    limit: int | None = None,
    report: Report | None = None,
    cancelled: Cancelled = never_cancelled,
) -> DataFacts:
    """Compute the statistics of a dataset.

    Args:
        show: number of records to include as examples.
        limit: number of records to read; if there are more, the result is not ``exact``.
        report: called about every 256 records.

    Raises:
        WorkbenchError: a record is malformed and ``data.malformed`` is ``stop``; or ``kind="cancelled"``.
    """

    template = template.with_system(data.system)
    collector = StatisticsCollector(records, template, data, batch_size)
    samples = encode_samples(records, template, data, report=report, cancelled=cancelled, limit=limit)
    shown = 0
    for sample in samples:
        example = example_of(sample, template) if shown < show and not sample.problem else None
        shown += example is not None
        collector.add(sample, example)
    exact = limit is None or next(islice(records.items(), limit, None), None) is None
    return collector.facts(exact)
