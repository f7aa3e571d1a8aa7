"""Writes the records of a recipe as they would be fed, cleaned, into a file of JSON lines and one for evaluation."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from workbench.data.prepare.duplicates import SeenRecords
from workbench.data.prepare.record_line import record_line
from workbench.data.prepare.splitting import split_conversation, split_text
from workbench.data.records.conversation import BadRecord, Conversation, Segments, chosen_side
from workbench.data.records.formats import RecordFormat
from workbench.data.sources import Item, Records
from workbench.data.templates.pieces import Piece
from workbench.data.templates.template import Template
from workbench.data.tokens.samples import as_trained, encode_items, segments_as_trained
from workbench.errors import WorkbenchError
from workbench.progress import Cancelled, Progress, Report, never_cancelled
from workbench.recipe.sections.data import DataSection
from workbench.storage.atomic import atomic_file

OverLength = Literal["leave-out", "split"]
_BATCH = 256


@dataclass(frozen=True)
class Cleaning:
    """What to do with the records.

    Attributes:
        over_length: leave out records over ``data.max_length``, or split them. Documents are always split.
        overlap: tokens that the parts of a split text share.
        near_duplicates: similarity, 0 to 1, from which a record is dropped; 0: only equal ones are.
    """

    over_length: OverLength = "leave-out"
    overlap: int = 0
    near_duplicates: float = 0.0


@dataclass
class Cleaned:
    """What was read, left out and written. ``read`` is the sum of the records left out, split, and written whole.

    Attributes:
        overlap: training records that match a held-out one.
        split, split_into: records that were split, and the parts of them that were written.
        questions_left_out: questions of split conversations whose response is over the length even alone.
        not_written: fields that the file lacks, by the number of records that fill them.
        changes: what was done to records to read and order them, in words, by their number.
    """

    read: int = 0
    invalid: int = 0
    invalid_reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    near_duplicates: int = 0
    overlap: int = 0
    over_length: int = 0
    split: int = 0
    split_into: int = 0
    questions_left_out: int = 0
    train_records: int = 0
    eval_records: int = 0
    not_written: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The counts as JSON data."""
        counters = {name: dict(value) for name, value in vars(self).items() if isinstance(value, Counter)}
        return asdict(self) | counters


def eval_file_of(file: Path) -> Path:
    """The file for held-out records: a file's eval split when it is read as a source."""
    return file.with_name(f"{file.stem}.eval{file.suffix}")


def write_cleaned(
    records: Records,
    template: Template,
    data: DataSection,
    file: Path,
    cleaning: Cleaning,
    report: Report = lambda progress: None,
    cancelled: Cancelled = never_cancelled,
) -> Cleaned:
    """Write the records into ``file``, and held-out ones into the file next to it; nothing if none is left.

    Both files appear complete or not at all.

    Raises:
        WorkbenchError: no record is left, or the sources mix text with conversations; kind ``cancelled``.
        OSError: a file cannot be written.
    """
    if records.kind != "texts":
        raise WorkbenchError(
            "Pairs of a chosen and a rejected response are not cleaned and written."
            if records.pairs
            else "Responses that are labeled good or bad are not cleaned and written.",
            "Train on their file as it is: duplicates and overlap are counted there. To write the chosen responses, "
            "set objective.kind to sft and name their columns in data.columns.",
            kind="data_preference",
        )
    names = {"text": "plain text", "segments": "segments"}
    forms = [source.form for source in records.sources if isinstance(source.form, RecordFormat)]
    kinds = sorted({names.get(form.shape, "conversations") for form in forms})
    if len(kinds) > 1:
        raise WorkbenchError(
            f"The sources mix {' and '.join(kinds)}, which one file cannot hold.",
            "Write each kind to a file of its own.",
            kind="data_format",
        )
    work = _Cleaner(records, template.with_system(data.system), data, cleaning, report, cancelled)
    with ExitStack() as files:
        train = files.enter_context(_written(files, file))
        held_out = files.enter_context(_written(files, eval_file_of(file))) if work.has_held_out else None
        for line, is_held_out in work.lines():
            output = held_out if is_held_out and held_out is not None else train
            output.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        if not work.counts.train_records:
            raise _nothing_left(work.counts, data)
    if held_out is not None and not work.counts.eval_records:
        eval_file_of(file).unlink()
    work.counts.files = [str(file), *([str(eval_file_of(file))] if work.counts.eval_records else [])]
    return work.counts


def _written(files: ExitStack, path: Path) -> TextIO:
    """Open a file that takes its place when ``files`` is closed without an error."""
    return files.enter_context(atomic_file(path)).open("w", encoding="utf-8")


def _nothing_left(counts: Cleaned, data: DataSection) -> WorkbenchError:
    reasons = [
        (counts.invalid, "invalid"),
        (counts.duplicates + counts.near_duplicates, "duplicates"),
        (counts.overlap, "also held out"),
        (counts.over_length, f"over {data.max_length} tokens"),
    ]
    told = ", ".join(f"{count:,} {reason}" for count, reason in reasons if count)
    first = next(iter(counts.invalid_reasons), "")
    return WorkbenchError(
        f"No record is left to train on, of {counts.read:,} read" + (f": {told}." if told else "."),
        f"The first reason: {first}." if first else "Raise data.max_length, or set --over-length split.",
        kind="data_no_tokens",
    )


class _Cleaner:
    """Reads records twice: first those held out, against which the others are then compared."""

    def __init__(
        self,
        records: Records,
        template: Template,
        data: DataSection,
        cleaning: Cleaning,
        report: Report,
        cancelled: Cancelled,
    ) -> None:
        # The file has whole conversations, which are taken apart when it is read.
        self._records = replace(records, each_response=False)
        self._template, self._data, self._cleaning = template, data, cleaning
        self._report, self._cancelled = report, cancelled
        self._keep_apart = "instruction" in template.source
        self.counts = Cleaned()
        self._seen = SeenRecords(cleaning.near_duplicates)
        self._held_out = SeenRecords(cleaning.near_duplicates)
        self.has_held_out = False
        for item in self._progress("looking for held-out records"):
            if item.held_out and item.content is not None:
                self.has_held_out = True
                self._held_out.match(self._as_trained(chosen_side(item.content)), add=True)
        self._seen_held_out = SeenRecords(cleaning.near_duplicates)

    def lines(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield the records to write as JSON objects, each with whether it is held out."""
        items = self._kept()
        while batch := list(islice(items, _BATCH)):
            for item, content in self._of_length(batch):
                if item.held_out:
                    self.counts.eval_records += 1
                else:
                    self.counts.train_records += 1
                yield record_line(content, self._data.system, keep_apart=self._keep_apart), item.held_out

    def _progress(self, phase: str) -> Iterator[Item]:
        for number, item in enumerate(self._records.items()):
            if number % _BATCH == 0:
                if self._cancelled():
                    raise WorkbenchError("Writing was cancelled.", kind="cancelled")
                self._report(Progress(phase=phase, fraction=min(item.fraction, 1.0), detail=f"{number:,} records"))
            yield item

    def _kept(self) -> Iterator[tuple[int, Item]]:
        """The records that are neither invalid nor duplicates, each with its index."""
        counts = self.counts
        for index, item in enumerate(self._progress("writing")):
            counts.read += 1
            if item.content is None:
                self._count_invalid(f"{item.where}: {item.problem}" if self._records.documents else item.problem)
                continue
            content = self._as_trained(chosen_side(item.content))
            if not item.held_out and self._held_out.match(content, add=False):
                counts.overlap += 1
                continue
            match = (self._seen_held_out if item.held_out else self._seen).match(content, add=True)
            counts.duplicates += match == "exact"
            counts.near_duplicates += match == "near"
            if not match:
                yield index, item

    def _count_invalid(self, problem: str) -> None:
        self.counts.invalid += 1
        self.counts.invalid_reasons[problem[:200]] += 1

    def _of_length(self, batch: list[tuple[int, Item]]) -> Iterator[tuple[Item, Conversation | Segments | str]]:
        """The records of a batch with their content, split or left out if they are over the length."""
        if self._records.documents:
            for _, item in batch:
                self.counts.changes.update([item.note] if item.note else [])
                yield from self._parts(item)
            return
        samples = encode_items(batch, self._records, self._template, self._data)
        for (_, item), sample in zip(batch, samples, strict=True):
            assert item.content is not None
            if not sample.problem:
                # What a template leaves out of turns is written nevertheless.
                self.counts.not_written.update(field.path for field in item.unused)
                self.counts.changes.update(sample.changes)
            if sample.problem:
                self._count_invalid(sample.problem)
            elif sample.length <= self._data.max_length and not sample.trained_tokens:
                self._count_invalid("no token is trained")
            elif sample.length <= self._data.max_length:
                yield item, self._as_trained(chosen_side(item.content))
            elif self._cleaning.over_length == "split":
                yield from self._parts(item)
            else:
                self.counts.over_length += 1

    def _parts(self, item: Item) -> Iterator[tuple[Item, Conversation | Segments | str]]:
        content = self._as_trained(chosen_side(item.content)) if item.content is not None else ""
        parts: list[Conversation] | list[str] = []  # segments are not split
        if isinstance(content, str):
            # Begin and end of sequence, which each part gets when it is fed.
            around = len(self._template.encode_text("x").input_ids) - self._tokens("x")
            limit = max(self._data.max_length - around, 1)
            parts = list(split_text(content, self._tokens, limit, self._cleaning.overlap))
        elif isinstance(content, Conversation):
            parts, left_out = split_conversation(content, self._fits)
            self.counts.questions_left_out += left_out if parts else 0
        if not parts:
            self.counts.over_length += 1
        elif len(parts) > 1 or parts[0] != content:
            self.counts.split += 1
            self.counts.split_into += len(parts)
        yield from ((item, part) for part in parts)

    def _as_trained(self, content: Conversation | Segments | str) -> Conversation | Segments | str:
        if isinstance(content, Segments):
            return segments_as_trained(content, self._data)
        return content if isinstance(content, str) else as_trained(content, self._data)

    def _tokens(self, text: str) -> int:
        return len(self._template.encode_pieces([[Piece(text, True)]])[0].input_ids)

    def _fits(self, conversation: Conversation) -> bool:
        try:
            return len(self._template.encode_conversation(conversation).input_ids) <= self._data.max_length
        except BadRecord:
            return False
