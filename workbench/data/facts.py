"""What there is to know of a data set before a run: counted while it is tokenised, whatever is done with the tokens."""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from heapq import heappush, heappushpop
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from workbench.data.sources import Records
from workbench.data.templates import Template
from workbench.engine.protocol import Progress
from workbench.errors import WorkbenchError
from workbench.recipe import DataSection, TrainingSection

if TYPE_CHECKING:
    from workbench.data.encode import Sample

LONGEST_LISTED = 10
HISTOGRAM_BINS = 32
# A run asks first when a larger share of its records loses the reply to the cut.
LOST_REPLIES_TO_ASK = 0.1


@dataclass(frozen=True)
class Example:
    """A record as it is fed. ``spans`` are ``(start, end, trained)`` in characters of ``text``, without gaps."""

    index: int
    where: str
    text: str
    spans: tuple[tuple[int, int, bool], ...]
    tokens: int
    cut: int
    held_out: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "where": self.where,
            "text": self.text,
            "spans": [list(span) for span in self.spans],
            "tokens": self.tokens,
            "cut": self.cut,
            "held_out": self.held_out,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`as_json` wrote."""
        return cls(**{**data, "spans": tuple((start, end, trained) for start, end, trained in data["spans"])})


@dataclass(frozen=True)
class Lengths:
    """Tokens a record, before the cut. ``histogram``: ``(from, to, records)``, ``to`` not included."""

    p50: int = 0
    p90: int = 0
    p99: int = 0
    max: int = 0
    histogram: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """Counts of a data set. Tokens and lengths are those of ``records``, which are the source's usable ones.

    Attributes:
        records: fed to training or held out from it; a held-out part that the source has of its own is not among them.
        train_records, eval_records: what is trained on, and evaluated on.
        skipped: unusable; ``skipped_reasons`` counts them by reason.
        lost_reply: dropped, because the cut left no token to train on.
        total, trained, masked: tokens fed; ``total = trained + masked``.
        cut: tokens lost to ``max_length``, those of dropped records included.
        truncated: records cut.
        packed_sequences: sequences an epoch with packing. padding_waste: share of padding without it, and
            ``packed_waste`` with it, 0 to 1.
        duplicates: training records equal to an earlier one. overlap: held-out records that are also trained on.
        near_empty: records with at most one trained token beside the end of sequence.
        padding: what batches are padded with, and that the end of a reply is trained all the same.
        exact: False for the facts of a sample.
    """

    format: str
    reason: str
    template: str
    max_length: int
    records: int = 0
    train_records: int = 0
    eval_records: int = 0
    skipped: int = 0
    skipped_reasons: Mapping[str, int] = field(default_factory=dict)
    lost_reply: int = 0
    total: int = 0
    trained: int = 0
    cut: int = 0
    truncated: int = 0
    lengths: Lengths = Lengths()
    packed_sequences: int = 0
    padding_waste: float = 0.0
    packed_waste: float = 0.0
    duplicates: int = 0
    overlap: int = 0
    near_empty: int = 0
    longest: tuple[tuple[int, str, int], ...] = ()
    examples: tuple[Example, ...] = ()
    notices: tuple[str, ...] = ()
    padding: str = ""
    exact: bool = True

    @property
    def masked(self) -> int:
        return self.total - self.trained

    @property
    def lost_reply_share(self) -> float:
        """Share of the records with a reply that lost all of it to the cut."""
        return self.lost_reply / max(self.lost_reply + self.records, 1)

    @property
    def loses_many_replies(self) -> bool:
        """Whether to ask before a run starts: over :data:`LOST_REPLIES_TO_ASK` of the records lost their reply."""
        return self.lost_reply_share > LOST_REPLIES_TO_ASK

    @property
    def lost_replies(self) -> str:
        """What to say before a run starts that :attr:`loses_many_replies`; empty for others."""
        if not self.loses_many_replies:
            return ""
        return (
            f"{_records(self.lost_reply)} of {self.lost_reply + self.records:,} ({self.lost_reply_share:.0%}) lose "
            f"the whole reply to the cut at {self.max_length} tokens and are left out; half of all have up to "
            f"{self.lengths.p50:,} tokens, 9 of 10 up to {self.lengths.p90:,}. A higher data.max_length keeps them."
        )

    def steps_per_epoch(self, training: TrainingSection, packing: bool) -> int:
        """Optimizer steps an epoch on one GPU, as transformers' ``Trainer`` counts them."""
        sequences = self.packed_sequences if packing else self.train_records
        batches = math.ceil(sequences / training.per_device_train_batch_size)
        return max(math.ceil(batches / training.gradient_accumulation_steps), 1)

    def steps(self, training: TrainingSection, packing: bool) -> int:
        """Optimizer steps of the whole run."""
        if training.max_steps > 0:
            return training.max_steps
        return math.ceil(training.num_train_epochs * self.steps_per_epoch(training, packing))

    def as_json(self) -> dict[str, Any]:
        """Plain data; shares are rounded to 4 places."""
        return {
            "records": self.records,
            "train_records": self.train_records,
            "eval_records": self.eval_records,
            "skipped": self.skipped,
            "skipped_reasons": dict(self.skipped_reasons),
            "lost_reply_records": self.lost_reply,
            "loses_many_replies": self.loses_many_replies,
            "format": self.format,
            "reason": self.reason,
            "template": self.template,
            "max_length": self.max_length,
            "tokens": {"total": self.total, "trained": self.trained, "masked": self.masked, "cut": self.cut},
            "length": {
                "p50": self.lengths.p50,
                "p90": self.lengths.p90,
                "p99": self.lengths.p99,
                "max": self.lengths.max,
            },
            "histogram": [list(bin_) for bin_ in self.lengths.histogram],
            "truncated_records": self.truncated,
            "packed_sequences": self.packed_sequences,
            "padding_waste": round(self.padding_waste, 4),
            "packed_waste": round(self.packed_waste, 4),
            "duplicates": self.duplicates,
            "overlap": self.overlap,
            "near_empty": self.near_empty,
            "longest": [{"index": index, "where": where, "tokens": tokens} for index, where, tokens in self.longest],
            "notices": list(self.notices),
            "padding": self.padding,
            "exact": self.exact,
            "examples": [example.as_json() for example in self.examples],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What :meth:`as_json` wrote."""
        tokens, length = data["tokens"], data["length"]
        names = {item.name for item in fields(cls)}
        return cls(
            **{name: value for name, value in data.items() if name in names - {"longest", "examples", "notices"}},
            lost_reply=data["lost_reply_records"],
            total=tokens["total"],
            trained=tokens["trained"],
            cut=tokens["cut"],
            truncated=data["truncated_records"],
            lengths=Lengths(**length, histogram=tuple((start, end, count) for start, end, count in data["histogram"])),
            longest=tuple((record["index"], record["where"], record["tokens"]) for record in data["longest"]),
            notices=tuple(data["notices"]),
            examples=tuple(map(Example.from_json, data["examples"])),
        )


class Collector:
    """Counts samples as they pass. Keeps 12 bytes a record: its length and a hash."""

    def __init__(self, records: Records, template: Template, data: DataSection, batch_size: int = 4) -> None:
        self._records, self._template, self._data, self._batch_size = records, template, data, batch_size
        self._lengths = array("I")
        self._train_lengths = array("I")
        self._train_hashes = array("q")
        self._eval_hashes = array("q")
        self._reasons: Counter[str] = Counter()
        self._longest: list[tuple[int, int, str]] = []
        self._examples: list[Example] = []
        self._counts: Counter[str] = Counter()

    def add(self, sample: "Sample", example: Example | None = None) -> None:
        """Count one sample; ``example`` is kept to be shown."""
        counts = self._counts
        if sample.problem:
            counts["skipped"] += 1
            self._reasons[_reason(sample.problem)] += 1
            return
        counts["rewritten"] += sample.rewritten
        counts["control"] += sample.control_tokens
        if example is not None:
            self._examples.append(example)
        if not sample.apart:
            self._add_lengths(sample)
        if not sample.trained_tokens:
            counts["lost_reply"] += 1
            return
        length = len(sample.input_ids)
        (self._eval_hashes if sample.held_out else self._train_hashes).append(sample.digest)
        if not sample.held_out:
            self._train_lengths.append(length)
        if not sample.apart:
            counts["records"] += 1
            counts["total"] += length
            counts["trained"] += sample.trained_tokens
            counts["near_empty"] += sample.trained_tokens <= 2

    def _add_lengths(self, sample: "Sample") -> None:
        kept = len(sample.input_ids) if sample.trained_tokens else 0
        self._lengths.append(sample.length)
        self._counts["cut"] += sample.length - kept
        self._counts["truncated"] += len(sample.input_ids) < sample.length
        entry = (sample.length, -sample.index, sample.where)
        (heappush if len(self._longest) < LONGEST_LISTED else heappushpop)(self._longest, entry)

    def facts(self, exact: bool = True) -> DataFacts:
        """What was counted up to now."""
        from workbench.data.packing import packed_sequences, padding_waste

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
            padding_waste=padding_waste(self._train_lengths, self._batch_size),
            packed_waste=1 - sum(self._train_lengths) / (sequences * data.max_length) if sequences else 0.0,
            duplicates=duplicates,
            overlap=overlap,
            near_empty=counts["near_empty"],
            longest=tuple((-index, where, length) for length, index, where in sorted(self._longest, reverse=True)),
            examples=tuple(self._examples),
            notices=tuple(self._notices(duplicates, overlap)),
            padding=_padding(self._template.tokenizer),
            exact=exact,
        )

    def _notices(self, duplicates: int, overlap: int) -> list[str]:
        counts, data = self._counts, self._data
        found = list(self._template.notices)
        if counts["skipped"]:
            reasons = "; ".join(f"{reason}: {count}" for reason, count in self._reasons.most_common(3))
            found.append(f"Skipped: {_records(counts['skipped'])} ({reasons}).")
        if counts["lost_reply"]:
            found.append(
                f"Dropped, as max_length {data.max_length} left nothing of the reply: {_records(counts['lost_reply'])}."
            )
        if shortened := counts["truncated"] - counts["lost_reply"]:
            found.append(f"Cut at {data.max_length} tokens, and with it the end of the reply: {_records(shortened)}.")
        if overlap:
            found.append(f"Held out for evaluation, yet also trained on: {_records(overlap)}.")
        if duplicates:
            found.append(f"Equal to an earlier one: {_records(duplicates)}.")
        if counts["rewritten"]:
            found.append(
                "Only the last reply is trained, as the template rewrites earlier turns: "
                f"{_records(counts['rewritten'])}."
            )
        if counts["control"]:
            found.append(
                f"With control tokens in their text, which the model takes as such: {_records(counts['control'])}."
            )
        if data.completion_only and self._records.format == "text" and not self._records.documents:
            found.append("Plain text has no reply: every token is trained.")
        return found


def data_facts(
    records: Records,
    template: Template,
    data: DataSection,
    *,
    batch_size: int = 4,
    show: int = 3,
    limit: int | None = None,
    report: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = bool,
) -> DataFacts:
    """The facts of a data set, without keeping its tokens.

    Args:
        show: records to keep as examples.
        limit: count only so many records: a first answer at once (``exact`` is False when there were more).
        report: called with the progress about every 256 records.

    Raises:
        WorkbenchError: a record is malformed and the recipe says to stop there; or ``kind="cancelled"``.
    """
    from workbench.data.encode import encode_samples, example_of

    template = template.with_system(data.system)
    collector = Collector(records, template, data, batch_size)
    samples = encode_samples(records, template, data, report=report, cancelled=cancelled, limit=limit)
    shown = 0
    for sample in samples:
        example = example_of(sample, template) if shown < show and not sample.problem else None
        shown += example is not None
        collector.add(sample, example)
    exact = limit is None or next(islice(records.items(), limit, None), None) is None
    return collector.facts(exact)


def find_examples(
    records: Records, template: Template, data: DataSection, start: int = 0, count: int = 10, search: str = ""
) -> list[Example]:
    """Records as they are fed, from the ``start``-th on; those whose text holds ``search``, in any case."""
    from workbench.data.encode import encode_samples, example_of

    template = template.with_system(data.system)
    found: list[Example] = []
    for sample in encode_samples(records, template, data, start=start):
        if sample.problem:
            continue
        example = example_of(sample, template)
        if search.casefold() in example.text.casefold():
            found.append(example)
            if len(found) == count:
                break
    return found


def refuse_if_nothing_is_trained(facts: DataFacts) -> None:
    """Raises WorkbenchError where no training record has a token left to train on."""
    if facts.train_records:
        return
    if facts.lost_reply:
        raise WorkbenchError(
            f"All {facts.lost_reply} records lost their reply to the cut at {facts.max_length} tokens.",
            f"Raise data.max_length; the longest record has {facts.lengths.max} tokens.",
            kind="data_no_tokens",
        )
    reasons = "; ".join(f"{reason}: {count}" for reason, count in list(facts.skipped_reasons.items())[:3])
    raise WorkbenchError(
        f"The data holds no record that can be trained on{f' ({reasons})' if reasons else ''}.",
        "Look at the records, and at data.format and data.columns.",
        kind="data_no_tokens",
    )


def _padding(tokenizer: Any) -> str:
    """The collator masks padding by its place, not by its id, so an end of sequence stays trained."""
    if tokenizer.pad_token_id not in (None, tokenizer.eos_token_id):
        return f"padded with {tokenizer.pad_token}, masked"
    return f"padded with the end of sequence {tokenizer.eos_token}, masked by place: a reply's own end is trained"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"


def _reason(problem: str) -> str:
    """A reason without its place, so that like ones are counted together."""
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
    import numpy as np

    distinct = np.unique(np.asarray(train, dtype=np.int64))
    overlap = int(np.isin(np.asarray(held_out, dtype=np.int64), distinct).sum()) if len(held_out) else 0
    return len(train) - len(distinct), overlap
