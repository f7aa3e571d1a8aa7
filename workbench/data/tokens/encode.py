"""Tokenizes a whole dataset for training, or loads its tokens from the cache."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.data.collector import StatisticsCollector
from workbench.data.facts import DataFacts, refuse_if_nothing_is_trained
from workbench.data.labels import label_names
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.data.tokens.file import TokenFile
from workbench.data.tokens.samples import encode_samples
from workbench.data.tokens.store import TokenStore
from workbench.progress import Cancelled, Progress, Report, never_cancelled
from workbench.recipe.sections.data import DataSection

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class EncodedData:
    """The tokens of a dataset, limited to ``max_length``, and its statistics.

    Attributes:
        train, eval: the datasets for the trainer, with the columns ``input_ids`` and ``labels``. For pairs, these are
            of the chosen side, and ``rejected_ids`` and ``rejected_labels`` of the rejected one. For unpaired
            responses, there is the column ``good``, which is 1 or 0. For texts with a label, there is the column
            ``label``, a place in :attr:`labels`.
        template: the one that was used, with the recipe's system prompt.
        from_cache: whether the tokens were read from the cache.
        reads_turns: whether the labels are of conversations.
    """

    train: "Dataset"
    eval: "Dataset"
    facts: DataFacts
    template: Template
    from_cache: bool = False
    reads_turns: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of their ids; empty for other records."""
        return tuple(self.facts.labels)

    @property
    def counts(self) -> dict[str, Any]:
        """The statistics as JSON data for the journal: without examples, histogram and notices."""
        facts = self.facts.as_json()
        del facts["examples"], facts["histogram"], facts["notices"]
        return facts

    @property
    def notices(self) -> list[str]:
        return list(self.facts.notices)


def encode_dataset(
    records: Records,
    template: Template,
    data: DataSection,
    report: Report | None = None,
    cancelled: Cancelled = never_cancelled,
) -> EncodedData:
    """Tokenize all records, or load their tokens from the cache.

    Large datasets are written to memory-mapped files, and into the cache of the records' home.

    Raises:
        WorkbenchError: there is no token to train on; a record is malformed and ``data.malformed`` is ``stop``; or
            ``kind="cancelled"``.
    """
    template = template.with_system(data.system)
    store = TokenStore(records, template, data)
    if (cached := store.load()) is not None:
        train_data, eval_data, facts = cached
        return EncodedData(train_data, eval_data, facts, template, from_cache=True, reads_turns=records.reads_turns)
    labels = label_names(records, cancelled) if records.kind == "labeled" else ()
    collector = StatisticsCollector(records, template, data, labels=labels)
    train, held_out = TokenFile(records, labels), TokenFile(records, labels)
    try:
        for sample in encode_samples(records, template, data, report=report, cancelled=cancelled):
            collector.add(sample)
            if sample.trained_tokens:
                (held_out if sample.held_out else train).add(sample)
        if report is not None:
            report(Progress(phase="tokenizing", detail="statistics, saving the tokens"))
        facts = collector.facts()
        refuse_if_nothing_is_trained(facts)
        store.save(train.close(), held_out.close(), facts)
    except BaseException:
        train.discard()
        held_out.discard()
        raise
    return EncodedData(train.dataset(), held_out.dataset(), facts, template, reads_turns=records.reads_turns)
