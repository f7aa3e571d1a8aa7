"""Reads the records of a recipe's data sources, and holds a part of them out for evaluation."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import repeat

from workbench.data.interleave import interleave
from workbench.data.open_source import Source, open_source
from workbench.data.records.conversation import BadRecord, Content, Conversation
from workbench.data.records.convert import convert
from workbench.data.records.formats import LabeledFormat, PairFormat, RecordFormat, UnpairedFormat
from workbench.data.records.preferences import cure_for_pairs, cure_for_unpaired
from workbench.data.records.unused import Unused
from workbench.data.rows.row import Row
from workbench.errors import WorkbenchError
from workbench.objectives.objective import RecordKind
from workbench.objectives.table import OBJECTIVES
from workbench.recipe.data_sources import source_parts, source_text
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home


@dataclass(frozen=True, slots=True)
class Item:
    """One record.

    Attributes:
        content: a conversation, a pair or plain text; None if the record is skipped, and then ``problem`` says why.
        where: file and line, or another place to name in a message.
        held_out: used for evaluation, not for training.
        from_eval_split: comes from the source's own eval split, not from the split that is trained on.
        fraction: its position in the source, 0 to 1.
        unused: columns that are filled but not fed.
        note: what was done to read it, as text for the user.
    """

    content: Content | None
    where: str
    held_out: bool = False
    from_eval_split: bool = False
    fraction: float = 0.0
    problem: str = ""
    unused: tuple[Unused, ...] = ()
    note: str = ""

    @property
    def is_trained(self) -> bool:
        """Whether it is trained on: usable, and not held out."""
        return self.content is not None and not self.held_out

    def contains(self, text: str) -> bool:
        """Whether ``text`` occurs in the record's text, ignoring case."""
        texts = [self.content] if isinstance(self.content, str) else self.content.texts if self.content else []
        return any(text.casefold() in part.casefold() for part in texts)


@dataclass(frozen=True)
class Records:
    """All records of a recipe's data section: those to train on and those held out for evaluation.

    Attributes:
        stopping: when interleaved sources end; empty if they are read one after the other.
        eval_records: how many are held out; 0 for a share of them, ``eval_fraction``.
        kind: what training makes of the records; each pair becomes two unpaired responses if they are ``unpaired``.
        each_response: whether each response of a conversation is a record of its own, with the turns before it.
    """

    sources: tuple[Source, ...]
    eval_fraction: float
    stop_at_malformed: bool
    home: Home | None = None
    stopping: str = ""
    kind: RecordKind = "texts"
    each_response: bool = False
    eval_records: int = 0

    @cached_property
    def _held_out_share(self) -> float:
        """The share of the records that is held out; of a number, it is that number of those that are used.

        Raises:
            WorkbenchError: the number is more than half of the records.
        """
        if not self.eval_records:
            return self.eval_fraction
        split = [source for source in self.sources if not source.reading.eval_rows]
        used = sum(self._usable(source) * min(1.0 if self.stopping else source.weight, 1.0) for source in split)
        if split and self.eval_records > used / 2:
            raise WorkbenchError(
                f"data.eval_records is {self.eval_records:,}, more than half of the {used:,.0f} records.",
                "Lower it, or set it to 0 and data.eval_fraction to a share.",
                kind="data_source",
            )
        return self.eval_records / used if used else 0.0

    def _usable(self, source: Source) -> int:
        """How many rows of a source are records."""
        return sum(self._content_of(row, source)[0] is not None for row in source.reading.rows())

    @property
    def format(self) -> str:
        """The formats of the sources, joined by commas if they differ."""
        return ", ".join(dict.fromkeys(source.form.kind for source in self.sources))

    @property
    def reason(self) -> str:
        """Why this format was detected."""
        if len(self.sources) == 1:
            return self.sources[0].form.reason
        return "; ".join(f"{source.name}: {source.form.reason}" for source in self.sources)

    @property
    def pairs(self) -> bool:
        """Whether the records are trained as pairs of a chosen and a rejected response."""
        return self.kind == "pairs"

    @property
    def is_plain_text(self) -> bool:
        """Whether all records are plain text."""
        forms = [source.form for source in self.sources]
        return all(isinstance(form, RecordFormat) and form.shape == "text" for form in forms)

    @property
    def reads_turns(self) -> bool:
        """Whether what is classified are conversations, which the template writes."""
        forms = [source.form for source in self.sources]
        return any(isinstance(form, LabeledFormat) and form.record.shape != "text" for form in forms)

    @property
    def class_order(self) -> tuple[str, ...]:
        """The labels in the order that a dataset's features give them; empty if its sources have none, or differ."""
        orders = {
            source.class_names.get(source.form.columns["label"], ())
            for source in self.sources
            if isinstance(source.form, LabeledFormat)
        }
        return next(iter(orders)) if len(orders) == 1 else ()

    @property
    def documents(self) -> bool:
        """Whether the records are whole documents, which are split into chunks instead of truncated."""
        return all(source.reading.documents for source in self.sources)

    @property
    def notices(self) -> list[str]:
        """What is not read of the sources, and what interleaving leaves out or repeats, for the user."""
        notices = [source.reading.notice for source in self.sources if source.reading.notice]
        if self.stopping == "first_exhausted":
            notices.append("Interleaving stops when the first source is exhausted; the rest of the others is not used.")
        elif self.stopping == "all_exhausted":
            notices.append("Sources that are exhausted before the last one start again, so their records repeat.")
        if self.each_response:
            notices.append("Each response of a conversation is a record of its own, with the turns before it.")
        return notices

    def items(self) -> Iterator[Item]:
        """Yield the records: of the sources in turn if they are interleaved, else each as often as its weight says.

        Held-out records are yielded at most once. Skipped ones are yielded once, so that all of them are counted.

        Raises:
            WorkbenchError: a source cannot be read, or a row is malformed and ``data.malformed`` is ``stop``.
        """
        for item in self._whole_items():
            if self.each_response and isinstance(item.content, Conversation):
                yield from (replace(item, content=part) for part in item.content.by_response())
            else:
                yield item

    def _whole_items(self) -> Iterator[Item]:
        if self.stopping:
            yield from self._interleaved()
            return
        for number, source in enumerate(self.sources):
            share, done = 1 / len(self.sources), number / len(self.sources)
            for index, item in enumerate(self._rows_of(source, done, share)):
                times = _repetitions(index, source.weight)
                if item.content is None:
                    times = 1
                elif item.held_out:
                    times = min(times, 1)
                yield from repeat(item, times)
            yield from self._eval_rows_of(source, done + share)

    def _interleaved(self) -> Iterator[Item]:
        """The records of the sources in turn, then those of their own eval splits."""
        reached = 0.0
        readers: list[Callable[[], Iterator[Item]]] = [partial(self._rows_of, source) for source in self.sources]
        weights = [source.weight for source in self.sources]
        for item in interleave(readers, weights, self.stopping, lambda item: item.is_trained):
            reached = max(reached, item.fraction)
            yield replace(item, fraction=reached)
        for source in self.sources:
            yield from self._eval_rows_of(source)

    def _rows_of(self, source: Source, done: float = 0.0, share: float = 1.0) -> Iterator[Item]:
        """The records of a source, each once; held out as the recipe says if it has no eval split of its own."""
        held_out = _HeldOutSampler(0.0 if source.reading.eval_rows else self._held_out_share)
        for row in source.reading.rows():
            content, problem, unused = self._content_of(row, source)
            is_held_out = content is not None and held_out.takes_next()
            fraction = done + share * row.fraction
            yield Item(content, row.where, is_held_out, False, fraction, problem, unused, row.note)

    def _eval_rows_of(self, source: Source, fraction: float = 1.0) -> Iterator[Item]:
        for row in source.reading.eval_rows() if source.reading.eval_rows else ():
            content, problem, unused = self._content_of(row, source)
            yield Item(content, row.where, True, True, fraction, problem, unused, row.note)

    def _content_of(self, row: Row, source: Source) -> tuple[Content | None, str, tuple[Unused, ...]]:
        """A row's content, the reason why it has none, and its unused columns."""
        if row.record is None:
            if self.stop_at_malformed:
                raise WorkbenchError(
                    f"{row.where}, {row.problem}.",
                    "Correct it, or set data.malformed to skip: bad lines are then skipped and counted.",
                    kind="data_malformed",
                )
            return None, row.problem, ()
        try:
            converted = convert(row.record, source.form)
        except BadRecord as error:
            return None, str(error), ()
        return converted.content, "", converted.unused


class _HeldOutSampler:
    """Selects the records to hold out: one per block of 1 / share records, pseudo-random but always the same.

    In the first block it is the second record, so that even a dataset of two has one held out. Changing this changes
    which records existing runs are evaluated on.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._count = 0
        self._block = -1
        self._pick = -1

    def takes_next(self) -> bool:
        """Whether the next usable record is held out."""
        index, self._count = self._count, self._count + 1
        if not self._share:
            return False
        block = int(index * self._share + 1e-9)
        if block != self._block:
            self._block, self._pick = block, self._pick_of(block)
        return index == self._pick

    def _pick_of(self, block: int) -> int:
        """The index of the record to hold out in a block."""
        # The tolerance keeps 0.1 * 10 from being a little less than 1.
        start = math.ceil(block / self._share - 1e-9)
        size = max(math.ceil((block + 1) / self._share - 1e-9) - start, 1)
        digest = hashlib.blake2b(block.to_bytes(8, "little"), digest_size=8).digest()
        return start + (int.from_bytes(digest, "little") % size if block else min(1, size - 1))


def load_records(data: DataSection, home: Home | None = None, *, kind: RecordKind | None = "texts") -> Records:
    """Open the sources of a recipe; :mod:`workbench.recipe.data_sources` has their two forms.

    Args:
        kind: the records that the objective reads; None to take them as what they are.

    Raises:
        WorkbenchError: there is no such source, its first rows cannot be read, their format is unknown, or kind
            ``data_preference`` if the objective does not read such records.
    """
    stop_at_malformed = data.malformed == "stop"
    sources = tuple(open_source(part, stop_at_malformed, labeled=kind == "labeled") for part in source_parts(data))
    if len({source.reading.documents for source in sources}) > 1:
        raise WorkbenchError(
            f"{source_text(data.source)} mixes folders of documents with records.",
            "Train on one kind at a time.",
            kind="data_format",
        )
    kinds = [_kind_of(source) for source in sources]
    if kind is not None:
        for source in sources:
            _check_kind(source, kind)
    elif len({*kinds}) > 1:
        raise WorkbenchError(
            f"{source_text(data.source)} mixes pairs of responses with other records."
            if "pairs" in kinds
            else f"{source_text(data.source)} mixes unpaired responses with other records.",
            "Train on one kind at a time.",
            kind="data_format",
        )
    is_interleaved = not isinstance(data.source, str) and len(sources) > 1
    stopping = data.stopping if is_interleaved else ""
    each = data.responses == "each"
    return Records(
        sources, data.eval_fraction, stop_at_malformed, home, stopping, kind or kinds[0], each, data.eval_records
    )


def _kind_of(source: Source) -> RecordKind:
    """What the records of a source are, whatever the objective."""
    match source.form:
        case PairFormat():
            return "pairs"
        case UnpairedFormat():
            return "unpaired"
        case LabeledFormat():
            return "labeled"
        case _:
            return "texts"


def _check_kind(source: Source, wanted: RecordKind) -> None:
    """Refuse a source that the objective does not read. Unpaired responses may be pairs, which become two of them."""
    form, found = source.form, _kind_of(source)
    if found == wanted or (found, wanted) == ("pairs", "unpaired"):
        return
    kinds = [objective.kind for objective in OBJECTIVES.values() if objective.records == wanted]
    if isinstance(form, PairFormat):
        columns = {part: column for part, column in form.chosen.columns.items() if part != "other side"}
        problem = f"{source.name} holds preference data: pairs of a chosen and a rejected response."
        cure = cure_for_pairs(columns)
    elif isinstance(form, UnpairedFormat) and wanted == "texts":
        label = form.columns["label"]
        problem = f"{source.name} holds preference data: responses that {label} marks as good or bad (KTO)."
        cure = cure_for_unpaired(form.columns)
    elif isinstance(form, UnpairedFormat):
        problem = (
            f"{source.name} holds responses that {form.columns['label']} marks as good or bad, one by one; "
            f"{', '.join(kinds)} need {OBJECTIVES[kinds[0]].records_in_words}."
        )
        cure = "Set objective.kind to kto, which learns from them."
    else:
        problem = (
            f"{source.name} has one response per prompt (format {form.kind}); objective.kind {', '.join(kinds)} needs "
            f"{OBJECTIVES[kinds[0]].records_in_words}."
        )
        example = "reply: answer, label: good" if wanted == "unpaired" else "chosen: better, rejected: worse"
        cure = (
            f"Name their columns, such as data.columns={{prompt: question, {example}}}, or set objective.kind to sft."
        )
    raise WorkbenchError(problem, cure, kind="data_preference")


def _repetitions(index: int, weight: float) -> int:
    """How often to use the record at ``index``: ⌊(i+1)·weight⌋ − ⌊i·weight⌋, ``weight`` times on average."""
    return int((index + 1) * weight + 1e-9) - int(index * weight + 1e-9)
