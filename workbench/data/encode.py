"""Records as the token ids and labels that training is given: what is counted, shown and trained on is the same."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from workbench.data.chunking import chunks
from workbench.data.collector import Collector
from workbench.data.facts import DataFacts, refuse_if_nothing_is_trained
from workbench.data.records.conversation import BadRecord, Conversation
from workbench.data.records.reasoning import without_reasoning
from workbench.data.sample import Sample
from workbench.data.sources import Item, Records
from workbench.data.templates.pieces import Encoded
from workbench.data.templates.template import Cut, Template
from workbench.data.token_file import TokenFile
from workbench.data.token_store import TokenStore
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import DataSection

_BATCH = 256
CONTROL = "Text contains control tokens, which the model treats as such"


@dataclass(frozen=True)
class EncodedData:
    """What the trainer is given: data sets with the columns ``input_ids`` and ``labels``, already cut.

    ``template`` is the one used, with the recipe's system prompt in it. ``was_kept``: nothing was tokenised for it,
    since the same had been tokenised before.
    """

    train: Any
    eval: Any
    facts: DataFacts
    template: Template
    was_kept: bool = False

    @property
    def counts(self) -> dict[str, Any]:
        """The facts as plain data without examples, for the journal."""
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
    report: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = bool,
) -> EncodedData:
    """Tokenise all records once, into memory-mapped files where they are many; a home keeps them for the next time.

    Raises:
        WorkbenchError: no token is left to train on; a record is malformed and the recipe says to stop there; or
            ``kind="cancelled"``.
    """
    template = template.with_system(data.system)
    store = TokenStore(records, template, data)
    if (found := store.load()) is not None:
        return EncodedData(*found, template, was_kept=True)
    collector = Collector(records, template, data)
    train, held_out = TokenFile(records), TokenFile(records)
    try:
        for sample in encode_samples(records, template, data, report=report, cancelled=cancelled):
            collector.add(sample)
            if sample.trained_tokens:
                (held_out if sample.held_out else train).add(sample)
        facts = collector.facts()
        refuse_if_nothing_is_trained(facts)
        store.keep(train.close(), held_out.close(), facts)
    except BaseException:
        train.discard()
        held_out.discard()
        raise
    return EncodedData(train.dataset(), held_out.dataset(), facts, template)


def encode_samples(
    records: Records,
    template: Template,
    data: DataSection,
    *,
    report: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = bool,
    start: int = 0,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Every record in order, tokenised some hundred at a time; a document makes as many samples as it has chunks.

    Args:
        start: records to pass over. limit: records to look at after them.
    """
    stop = None if limit is None else start + limit
    items = enumerate(islice(records.items(), start, stop), start=start)
    while batch := list(islice(items, _BATCH)):
        if cancelled():
            raise WorkbenchError("Tokenising was cancelled.", kind="cancelled")
        yield from encode_items(batch, records, template, data)
        if report is not None:
            report(
                Progress(
                    phase="tokenising", fraction=min(batch[-1][1].fraction, 1.0), detail=f"{batch[-1][0] + 1:,} records"
                )
            )


def encode_items(
    items: Sequence[tuple[int, Item]], records: Records, template: Template, data: DataSection
) -> Iterator[Sample]:
    """Some records, each with its place in the data, tokenised in one call."""
    control = _control_tokens(template)
    prepared = [_cut(item, template, records.documents, data) for _, item in items]
    encoded = iter(template.encode_pieces([cut.pieces for cut in prepared if isinstance(cut, Cut)]))
    for (index, item), cut in zip(items, prepared, strict=True):
        if isinstance(cut, str):
            yield Sample(index, item.where, [], [], 0, item.held_out, item.apart, problem=cut)
            continue
        whole = next(encoded)
        texts = item.content.texts if isinstance(item.content, Conversation) else []
        changes = (*cut.changes, *([CONTROL] if any(map(control.search, texts)) else []))
        for ids, trained, length in _parts(whole, data, records.documents):
            unused = (*item.unused, *cut.unused)
            yield Sample(index, item.where, ids, trained, length, item.held_out, item.apart, changes, unused)


def _cut(item: Item, template: Template, documents: bool, data: DataSection) -> Cut | str:
    """An item's text in pieces, or why it is skipped."""
    if item.content is None:
        return item.problem
    if isinstance(item.content, str):
        return Cut((template.document_pieces if documents else template.text_pieces)(item.content))
    try:
        return template.cut(_chosen(item.content, data), answer_only=data.reasoning == "mask")
    except BadRecord as error:
        return str(error)


def _chosen(conversation: Conversation, data: DataSection) -> Conversation:
    """A conversation with the parts of it that the recipe wants trained."""
    if data.reasoning == "drop":
        conversation = without_reasoning(conversation)
    if data.responses == "last":
        last = max(n for n, message in enumerate(conversation.messages) if message["role"] == "assistant")
        conversation = replace(conversation, untrained=conversation.untrained | frozenset(range(last)))
    return conversation


def _parts(whole: Encoded, data: DataSection, documents: bool) -> Iterator[tuple[list[int], list[bool], int]]:
    """What is fed of one text, cut off at ``max_length``, or a document in chunks of it.

    Ids, which of them are trained, and their number before the cut.
    """
    if not documents:
        trained = whole.trained if data.completion_only else [True] * len(whole.input_ids)
        end = data.max_length
        yield whole.input_ids[:end], trained[:end], len(whole.input_ids)
        return
    for chunk in chunks(whole.input_ids, whole.piece_ends, data.max_length):
        ids = whole.input_ids[chunk.start : chunk.end]
        trained = [False] * chunk.overlap + [True] * (len(ids) - chunk.overlap)
        yield ids, trained, len(ids)


def _control_tokens(template: Template) -> re.Pattern[str]:
    """Matches the tokenizer's special tokens spelt out."""
    special = sorted(template.tokenizer.all_special_tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, special)) or r"(?!)")
