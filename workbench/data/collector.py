"""Computes a dataset's statistics from its samples, one sample at a time, while they are tokenized."""

from array import array
from collections import Counter
from collections.abc import Sequence
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING

from workbench.data.facts import DataFacts, Example, Lengths, records_text
from workbench.data.records.labeled import in_order, labels_text
from workbench.data.records.unused import UnusedField
from workbench.data.sample import Sample, Tokens
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.recipe.sections.data import DataSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_LISTED = 10
HISTOGRAM_BINS = 32


class StatisticsCollector:
    """Accumulates the statistics of the samples added to it. Stores 12 bytes per record: its length and a hash.

    Args:
        labels: those that are known before the first sample.
    """

    def __init__(
        self,
        records: Records,
        template: Template,
        data: DataSection,
        batch_size: int = 4,
        labels: Sequence[str] = (),
    ) -> None:
        self._records, self._template, self._data, self._batch_size = records, template, data, batch_size
        self._lengths = array("I")
        self._train_lengths = array("I")
        self._train_hashes = array("q")
        self._eval_hashes = array("q")
        self._reasons: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._asks: Counter[str] = Counter()
        self._longest: list[tuple[int, int, str]] = []
        self._examples: list[Example] = []
        self._counts: Counter[str] = Counter()
        self._largest_id = -1
        self._class_order = records.class_order
        self._labels: Counter[str] = Counter(dict.fromkeys(labels, 0))

    def add(self, sample: Sample, example: Example | None = None) -> None:
        """Count one sample; ``example``, if given, becomes part of the statistics."""
        counts, sides = self._counts, sample.sides
        for side in sides:
            self._largest_id = max(self._largest_id, max(side.input_ids, default=-1))
        if sample.problem:
            counts["skipped"] += 1
            self._reasons[_reason(sample.problem)] += 1
            return
        if sample.changes:
            self._changes.update(sample.changes)
        for unused in sample.unused:
            self._unused[unused.path] += 1
            self._asks[unused.path] += unused.asks
        if example is not None:
            self._examples.append(example)
        lengths = [len(side.input_ids) for side in sides]
        trained = [sum(side.trained) for side in sides]
        if not sample.from_eval_split:
            self._add_lengths(sample, sides, kept=sum(lengths) if all(trained) else 0)
        if not all(trained):
            counts["lost_reply"] += 1
            return
        if sample.label is not None:
            self._labels[sample.label] += 1
        (self._eval_hashes if sample.held_out else self._train_hashes).append(sample.digest)
        if not sample.held_out:
            self._train_lengths.extend(lengths)
        if not sample.from_eval_split:
            counts["records"] += 1
            counts["total"] += sum(lengths)
            counts["trained"] += sum(trained)
            counts["near_empty"] += min(trained) <= 2

    def _add_lengths(self, sample: Sample, sides: Sequence[Tokens], *, kept: int) -> None:
        whole = [side.length for side in sides]
        self._lengths.append(max(whole))
        self._counts["cut"] += sum(whole) - kept
        self._counts["truncated"] += any(len(side.input_ids) < side.length for side in sides)
        entry = (max(whole), -sample.index, sample.where)
        (heappush if len(self._longest) < LONGEST_LISTED else heappushpop)(self._longest, entry)

    def facts(self, exact: bool = True) -> DataFacts:
        """The statistics of the samples so far; ``exact``: these are all samples of the dataset."""
        from workbench.data.tokens.packing import packed_sequences, padding_waste

        counts, data = self._counts, self._data
        sequences = packed_sequences(self._train_lengths, data.max_length)
        duplicates, overlap = _repeats(self._train_hashes, self._eval_hashes)
        return DataFacts(
            format=self._records.format,
            reason=self._records.reason,
            template=self._template.name,
            max_length=data.max_length,
            records=counts["records"],
            train_records=len(self._train_hashes),
            eval_records=len(self._eval_hashes),
            skipped=counts["skipped"],
            skipped_reasons=dict(self._reasons.most_common(20)),
            lost_reply=counts["lost_reply"],
            total=counts["total"],
            trained=counts["trained"],
            cut=counts["cut"],
            truncated=counts["truncated"],
            lengths=_lengths(self._lengths),
            packed_sequences=sequences,
            padding_waste=padding_waste(self._train_lengths, self._batch_size * (1 + self._records.pairs)),
            packed_waste=1 - sum(self._train_lengths) / (sequences * data.max_length) if sequences else 0.0,
            duplicates=duplicates,
            overlap=overlap,
            near_empty=counts["near_empty"],
            longest=tuple((-index, where, length) for length, index, where in sorted(self._longest, reverse=True)),
            examples=tuple(self._examples),
            notices=tuple(self._notices(duplicates, overlap)),
            unused=self._unused_fields(),
            largest_id=self._largest_id,
            labels=self._ordered_labels(),
            padding=_padding(self._template.tokenizer),
            exact=exact,
        )

    def _ordered_labels(self) -> dict[str, int]:
        """How many records have each label, in the order of the labels' ids."""
        return {label: self._labels[label] for label in in_order(self._labels, self._class_order)}

    def _unused_fields(self) -> tuple[UnusedField, ...]:
        """Fields that are not fed, those to ask about first. One is asked about if half of its values look fed."""
        ignored = {*self._data.ignore}
        fields = [
            UnusedField(path, count, self._asks[path] * 2 >= count and path not in ignored)
            for path, count in self._unused.items()
        ]
        return tuple(sorted(fields, key=lambda field: (not field.asks, -field.records)))

    def _notices(self, duplicates: int, overlap: int) -> list[str]:
        counts, data = self._counts, self._data
        is_labeled = self._records.kind == "labeled"
        # Plain text is classified without a template.
        notices = [*([] if is_labeled else self._template.notices), *self._records.notices]
        if counted := self._ordered_labels():
            notices.append(f"Labels: {len(counted)} ({labels_text(counted)}).")
        if counts["skipped"]:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in self._reasons.most_common(3))
            notices.append(f"Skipped: {records_text(counts['skipped'])} ({reasons}).")
        if counts["lost_reply"]:
            lost = records_text(counts["lost_reply"])
            notices.append(f"Skipped because max_length {data.max_length} cut off the whole response: {lost}.")
        if shortened := counts["truncated"] - counts["lost_reply"]:
            notices.append(
                f"Truncated at {data.max_length} tokens, losing the end of the {'text' if is_labeled else 'response'}: "
                f"{records_text(shortened)}."
            )
        if overlap:
            notices.append(f"Train/eval overlap: {records_text(overlap)}.")
        if duplicates:
            notices.append(f"Duplicates: {records_text(duplicates)}.")
        notices += [f"{change}: {records_text(count)}." for change, count in self._changes.items()]
        if unused := [field for field in self._unused_fields() if not field.asks]:
            listed = ", ".join(f"{field.path} ({records_text(field.records)})" for field in unused)
            notices.append(f"Not used for training: {listed}.")
        if data.completion_only and self._records.is_plain_text and not self._records.documents:
            notices.append("Plain text has no response: trained on every token.")
        return notices


def _padding(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Describe how batches are padded.

    The collator masks padding by position, not by token id, so that end-of-sequence tokens are trained on.
    """
    flat = "concatenated without padding, or, if the model does not support it,"
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return f"{flat} padded with {tokenizer.pad_token}, masked"
    return f"{flat} padded with {tokenizer.eos_token}, masked by position: the end of a response is trained"


def _reason(problem: str) -> str:
    """A problem without the column it names, so that equal problems are counted together."""
    start, colon, rest = problem.partition(": ")
    return rest if colon and start.startswith("column ") and start[7:].isdigit() else problem[:120]


def _lengths(lengths: "array[int]") -> Lengths:
    import numpy as np

    if not lengths:
        return Lengths()
    values = np.asarray(lengths)
    p50, p90, p99 = (int(value) for value in np.percentile(values, (50, 90, 99), method="higher"))
    top = int(values.max()) + 1
    edges = np.unique(np.linspace(0, top, min(HISTOGRAM_BINS, top) + 1).astype(int))
    counts, _ = np.histogram(values, bins=edges)
    bins = tuple(
        (int(start), int(end), int(count)) for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    return Lengths(p50, p90, p99, top - 1, bins)


def _repeats(train: "array[int]", held_out: "array[int]") -> tuple[int, int]:
    """The number of duplicates among the training records, and of held-out records that are also trained on."""

    import numpy as np

    distinct = np.unique(np.asarray(train, dtype=np.int64))
    overlap = int(np.isin(np.asarray(held_out, dtype=np.int64), distinct).sum()) if len(held_out) else 0
    return len(train) - len(distinct), overlap
