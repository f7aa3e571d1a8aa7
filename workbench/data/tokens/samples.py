"""Turns records into samples: their texts are cut into pieces, tokenized in batches, and limited to ``max_length``."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from workbench.data.records.conversation import BadRecord, Conversation, Labeled, Pair, Segments, Unpaired
from workbench.data.records.reasoning import without_reasoning
from workbench.data.records.unused import Unused
from workbench.data.sample import Sample, Tokens
from workbench.data.sources import Item, Records
from workbench.data.templates.cutting import REWRITTEN, Cut
from workbench.data.templates.pieces import Encoded, Piece
from workbench.data.templates.template import Template
from workbench.data.tokens.chunking import chunks
from workbench.errors import WorkbenchError
from workbench.progress import Cancelled, Progress, Report, never_cancelled
from workbench.recipe.sections.data import DataSection

_BATCH = 256
NOT_TRAINED = "no response is trained: the record excludes them"
REWRITTEN_AWAY = "no response is trained: the template rewrites the earlier ones, and the record excludes the last"
EQUAL_AFTER_CUT = "chosen and rejected are the same once truncated to max_length"
NO_END = "No end of sequence after the last segment: the model may not learn where to stop"
CONTROL = "Text contains control tokens, which the model treats as such"


def encode_samples(
    records: Records,
    template: Template,
    data: DataSection,
    *,
    report: Report | None = None,
    cancelled: Cancelled = never_cancelled,
    start: int = 0,
    limit: int | None = None,
) -> Iterator[Sample]:
    """Tokenize records in order, a few hundred at a time; yields one sample per record, or per chunk of a document.

    Args:
        start: number of records to skip.
        limit: number of records to read after them.
    """
    stop = None if limit is None else start + limit
    items = enumerate(islice(records.items(), start, stop), start=start)

    def finished(batch: _Batch, tokens: Future[list[Encoded]]) -> Iterator[Sample]:
        yield from _samples(batch, tokens.result(), records, template, data)
        if report is not None:
            last, item = batch.items[-1]
            report(Progress(phase="tokenizing", fraction=min(item.fraction, 1.0), detail=f"{last + 1:,} records"))

    # The Rust tokenizer leaves the interpreter to others: meanwhile the next records are rendered.
    with ThreadPoolExecutor(1, "tokenizer") as thread:
        before: tuple[_Batch, Future[list[Encoded]]] | None = None
        while some := list(islice(items, _BATCH)):
            if cancelled():
                raise WorkbenchError("Tokenizing was cancelled.", kind="cancelled")
            batch = _Batch.of(some, records, template, data)
            tokens = thread.submit(template.encode_pieces, batch.pieces)
            if before is not None:
                yield from finished(*before)
            before = batch, tokens
        if before is not None:
            yield from finished(*before)


def encode_items(
    items: Sequence[tuple[int, Item]], records: Records, template: Template, data: DataSection
) -> Iterator[Sample]:
    """Tokenize some records in one call; each comes with its index in the data."""
    batch = _Batch.of(items, records, template, data)
    return _samples(batch, template.encode_pieces(batch.pieces), records, template, data)


@dataclass(frozen=True)
class _Batch:
    """Records with their texts in pieces.

    Attributes:
        cuts: for each record its text, of a pair both, or why it is skipped.
    """

    items: Sequence[tuple[int, Item]]
    cuts: Sequence[tuple[Cut, ...] | str]

    @classmethod
    def of(cls, items: Sequence[tuple[int, Item]], records: Records, template: Template, data: DataSection) -> "_Batch":
        return cls(items, [_cut(item, template, records.documents, data) for _, item in items])

    @property
    def pieces(self) -> list[list[Piece]]:
        """The texts to tokenize, in order."""
        return [cut.pieces for cuts in self.cuts if not isinstance(cuts, str) for cut in cuts]


def _samples(
    batch: _Batch, tokens: Sequence[Encoded], records: Records, template: Template, data: DataSection
) -> Iterator[Sample]:
    """The samples of a batch, given the tokens of its texts."""
    control = _control_tokens(template)
    encoded = iter(tokens)
    for (index, item), cuts in zip(batch.items, batch.cuts, strict=True):
        if isinstance(cuts, str):
            yield _skipped(index, item, cuts)
            continue
        texts = [next(encoded) for _ in cuts]
        if data.completion_only and not all(any(text.trained) for text in texts):
            is_rewritten = any(REWRITTEN in cut.changes for cut in cuts)
            yield _skipped(index, item, REWRITTEN_AWAY if is_rewritten else NOT_TRAINED)
            continue
        changes = _changes(item, cuts, control)
        unused = (*item.unused, *dict.fromkeys(field for cut in cuts for field in cut.unused))
        limited = [list(_truncated_or_chunked(text, data, records.documents)) for text in texts]
        if len(limited) == 2:
            pair = _pair_sample(index, item, limited[0][0], limited[1][0], changes, unused)
            yield from _unpaired_sides(pair) if records.kind == "unpaired" else (pair,)
            continue
        good = item.content.good if isinstance(item.content, Unpaired) else None
        label = item.content.label if isinstance(item.content, Labeled) else None
        for text in limited[0]:
            yield _sample(index, item, text, changes, unused, good=good, label=label)


def _skipped(index: int, item: Item, problem: str) -> Sample:
    """The sample of a record that is not used."""
    return Sample(index, item.where, [], [], 0, item.held_out, item.from_eval_split, problem=problem)


def _sample(
    index: int,
    item: Item,
    text: Tokens,
    changes: tuple[str, ...],
    unused: tuple[Unused, ...],
    *,
    rejected: Tokens | None = None,
    good: bool | None = None,
    label: str | None = None,
) -> Sample:
    """The sample of a record; ``text`` is its text, or that of the chosen side."""
    return Sample(
        index,
        item.where,
        text.input_ids,
        text.trained,
        text.length,
        item.held_out,
        item.from_eval_split,
        changes,
        unused,
        rejected=rejected,
        good=good,
        label=label,
    )


def _changes(item: Item, cuts: Sequence[Cut], control: re.Pattern[str]) -> tuple[str, ...]:
    """What was done to a record, for the user."""
    notes = [item.note] if item.note else []
    changes = dict.fromkeys(change for cut in cuts for change in cut.changes)
    texts = item.content.texts if isinstance(item.content, Conversation | Pair | Unpaired | Labeled) else []
    return (*notes, *changes, *([CONTROL] if any(map(control.search, texts)) else []))


def _pair_sample(
    index: int, item: Item, chosen: Tokens, rejected: Tokens, changes: tuple[str, ...], unused: tuple[Unused, ...]
) -> Sample:
    """A tokenized pair; skipped if truncation left both sides the same."""
    if chosen.input_ids == rejected.input_ids and any(chosen.trained):
        return _skipped(index, item, EQUAL_AFTER_CUT)
    return _sample(index, item, chosen, changes, unused, rejected=rejected)


def _unpaired_sides(pair: Sample) -> Iterator[Sample]:
    """A pair as a good and a bad response; what was changed in it and is unused is counted once."""
    if pair.rejected is None:
        yield pair
        return
    yield replace(pair, rejected=None, good=True)
    bad = pair.rejected
    yield replace(
        pair,
        input_ids=bad.input_ids,
        trained=bad.trained,
        length=bad.length,
        changes=(),
        unused=(),
        rejected=None,
        good=False,
    )


def _cut(item: Item, template: Template, documents: bool, data: DataSection) -> tuple[Cut, ...] | str:
    """A record's text in pieces (of a pair, both texts), or the reason why it is skipped."""
    content = item.content
    if content is None:
        return item.problem
    if isinstance(content, str):
        return (Cut((template.document_pieces if documents else template.text_pieces)(content)),)
    if isinstance(content, Segments):
        changes = () if template.is_ended(content.text) else (NO_END,)
        return (Cut(template.segment_pieces(segments_as_trained(content, data)), changes=changes),)
    if isinstance(content, Pair) and isinstance(content.chosen, str) and isinstance(content.rejected, str):
        return tuple(map(Cut, template.parted_pieces(content.chosen, content.rejected)))
    if isinstance(content, Labeled):
        try:
            return (Cut(template.sequence_pieces(content.content)),)
        except BadRecord as error:
            return str(error)
    sides: tuple[Conversation | str, ...]
    match content:
        case Pair():
            sides = (content.chosen, content.rejected)
        case Unpaired():
            sides = (content.response,)
        case _:
            sides = (content,)
    try:
        return tuple(
            template.cut(as_trained(side, data), answer_only=data.reasoning == "mask")
            for side in sides
            if isinstance(side, Conversation)
        )
    except BadRecord as error:
        return str(error)


def as_trained(conversation: Conversation, data: DataSection) -> Conversation:
    """A conversation as ``data.reasoning`` and ``data.responses`` ask: what is dropped, and what is not trained."""
    if data.reasoning == "drop":
        conversation = without_reasoning(conversation)
    if data.responses == "last":
        earlier = frozenset(conversation.responses[:-1])
        conversation = replace(conversation, untrained=conversation.untrained | earlier)
    return conversation


def segments_as_trained(segments: Segments, data: DataSection) -> Segments:
    """Segments as ``data.responses`` asks; they have no reasoning of their own."""
    return segments.with_last_trained() if data.responses == "last" else segments


def _truncated_or_chunked(whole: Encoded, data: DataSection, documents: bool) -> Iterator[Tokens]:
    """Limit one text to ``max_length``: truncate a record, split a document into chunks."""
    if not documents:
        ids, length = whole.input_ids, len(whole.input_ids)
        trained = whole.trained if data.completion_only else [True] * length
        limit = data.max_length
        yield Tokens(ids, trained, length) if length <= limit else Tokens(ids[:limit], trained[:limit], length)
        return
    for chunk in chunks(whole.input_ids, whole.piece_ends, data.max_length):
        ids = whole.input_ids[chunk.start : chunk.end]
        trained = [False] * chunk.overlap + [True] * (len(ids) - chunk.overlap)
        yield Tokens(ids, trained, len(ids))


def _control_tokens(template: Template) -> re.Pattern[str]:
    """A pattern that matches the tokenizer's special tokens in plain text."""

    special = sorted(template.tokenizer.all_special_tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, special)) or r"(?!)")
