"""The statistics of a dataset: record and token counts, lengths, examples; with conversion to and from JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from workbench.data.records.media import is_media_column, media_question
from workbench.data.records.unused import UnusedField
from workbench.data.records.values import common_length
from workbench.errors import WorkbenchError
from workbench.recipe.sections.training import TrainingSection

# If truncation removes the whole response of a larger share of the records, the user is asked before a run starts.
LOST_REPLIES_TO_ASK = 0.1


@dataclass(frozen=True)
class Example:
    """A record as formatted training text.

    Attributes:
        spans: ``(start, end, trained)`` in characters of ``text``, without gaps.
        unused: fields of the record that are not fed to the model.
        tokens, cut: number of tokens, and of those lost to truncation.
        problem: why the record is not used for training; then it has no text.
        rejected: the text of the rejected side of a pair, with its own spans, ``tokens`` and ``cut``; None for others.
        good: whether an unpaired response is good; None for others.
        label: of a text for classification; None for others.
    """

    index: int
    where: str
    text: str
    spans: tuple[tuple[int, int, bool], ...]
    tokens: int
    cut: int
    held_out: bool
    unused: tuple[str, ...] = ()
    problem: str = ""
    rejected: "Example | None" = None
    good: bool | None = None
    label: str | None = None

    @property
    def parts_at(self) -> int:
        """The character where the two sides of a pair part; 0 for other records."""
        return common_length(self.text, self.rejected.text) if self.rejected is not None else 0

    def as_json(self) -> dict[str, object]:
        """The example as JSON data."""
        data: dict[str, object] = {
            "index": self.index,
            "where": self.where,
            "text": self.text,
            "spans": [list(span) for span in self.spans],
            "tokens": self.tokens,
            "cut": self.cut,
            "held_out": self.held_out,
            "unused": list(self.unused),
            "problem": self.problem,
        }
        if self.rejected is not None:
            data["rejected"] = self.rejected.as_json()
        known = {"good": self.good, "label": self.label}
        return data | {name: value for name, value in known.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` wrote."""
        spans = tuple((start, end, trained) for start, end, trained in data["spans"])
        rejected = cls.from_json(data["rejected"]) if data.get("rejected") else None
        return cls(**{**data, "spans": spans, "unused": tuple(data["unused"]), "rejected": rejected})


@dataclass(frozen=True)
class Lengths:
    """Tokens per record (of a pair: of its longer side), before truncation.

    ``histogram``: bins ``(from, to, records)``, ``to`` not included.
    """

    p50: int = 0
    p90: int = 0
    p99: int = 0
    max: int = 0
    histogram: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """Statistics of a dataset. Token counts and lengths are those of ``records``.

    Attributes:
        format, reason: the record format, and why it was detected.
        records: usable records or pairs of the split, trained on or held out; without the source's own eval split.
        train_records, eval_records: records used for training and for evaluation.
        skipped: invalid records; ``skipped_reasons`` counts them by reason.
        lost_reply: records skipped because truncation left no token to train on.
        total, trained, masked: tokens of the records; ``total = trained + masked``.
        cut: tokens lost to truncation, including those of skipped records.
        truncated: truncated records.
        packed_sequences: sequences per epoch with packing.
        padding_waste, packed_waste: share of padding without and with packing, 0 to 1.
        duplicates: training records equal to an earlier one.
        overlap: held-out records that are also trained on.
        near_empty: records with at most one trained token besides the end of sequence.
        longest: the longest records as ``(index, where, tokens)``.
        unused: fields of records that are not used for training.
        padding: a sentence on how batches are padded.
        largest_id: the largest token id; -1 without records.
        labels: of texts for classification, in the order of their ids, with their numbers of records.
        exact: False for the statistics of a sample of the dataset.
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
    unused: tuple[UnusedField, ...] = ()
    padding: str = ""
    largest_id: int = -1
    labels: Mapping[str, int] = field(default_factory=dict)
    exact: bool = True

    @property
    def masked(self) -> int:
        return self.total - self.trained

    @property
    def lost_reply_share(self) -> float:
        """Share of the records with a response that lost all of it to truncation."""
        return self.lost_reply / max(self.lost_reply + self.records, 1)

    @property
    def loses_many_replies(self) -> bool:
        """Whether to ask before a run starts: more than :data:`LOST_REPLIES_TO_ASK` of the records lost their reply."""
        return self.lost_reply_share > LOST_REPLIES_TO_ASK

    @property
    def lost_replies(self) -> str:
        """The warning to show before a run starts if :attr:`loses_many_replies`; else an empty string."""
        if not self.loses_many_replies:
            return ""
        return (
            f"{records_text(self.lost_reply)} of {self.lost_reply + self.records:,} "
            f"({self.lost_reply_share:.0%}) lose the whole response to truncation at "
            f"{self.max_length} tokens and are skipped. Lengths: median {self.lengths.p50:,}, p90 "
            f"{self.lengths.p90:,}. Raise data.max_length to keep them."
        )

    @property
    def questions(self) -> tuple[str, ...]:
        """What to ask before a run starts."""
        media = media_question(self.skipped_reasons, self.unused)
        return tuple(text for text in (self.lost_replies, media, self.unused_question) if text)

    @property
    def unused_question(self) -> str:
        """Names the unused fields, but for images, that look like a part of the conversation; empty without any."""
        fields = [field for field in self.unused if field.asks and not is_media_column(field.path)]
        asked = [f"{field.path} ({records_text(field.records)})" for field in fields]
        if not asked:
            return ""
        looks = "looks like a part" if len(asked) == 1 else "look like parts"
        return (
            f"Not used for training, but {looks} of the conversation: {', '.join(asked)}. "
            "Map a column with data.columns, such as {input: context}, choose a data.template that writes it, or list "
            "what you don't need in data.ignore."
        )

    def steps_per_epoch(self, training: TrainingSection, packing: bool) -> int:
        """Optimizer steps per epoch on one GPU, as transformers' ``Trainer`` counts them."""
        sequences = self.packed_sequences if packing else self.train_records
        return max(math.ceil(sequences / training.effective_batch), 1)

    def steps(self, training: TrainingSection, packing: bool) -> int:
        """Optimizer steps of the whole run."""
        if training.max_steps > 0:
            return training.max_steps
        return math.ceil(training.num_train_epochs * self.steps_per_epoch(training, packing))

    def as_json(self) -> dict[str, Any]:
        """The statistics as JSON data; shares are rounded to 4 decimal places."""
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
            "unused": [asdict(field) for field in self.unused],
            "padding": self.padding,
            "largest_id": self.largest_id,
            **({"labels": dict(self.labels)} if self.labels else {}),
            "exact": self.exact,
            "examples": [example.as_json() for example in self.examples],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` wrote."""
        tokens, length = data["tokens"], data["length"]
        names = {item.name for item in fields(cls)} - {"longest", "examples", "notices", "unused"}
        return cls(
            **{name: value for name, value in data.items() if name in names},
            lost_reply=data["lost_reply_records"],
            total=tokens["total"],
            trained=tokens["trained"],
            cut=tokens["cut"],
            truncated=data["truncated_records"],
            lengths=Lengths(**length, histogram=tuple((start, end, count) for start, end, count in data["histogram"])),
            longest=tuple((record["index"], record["where"], record["tokens"]) for record in data["longest"]),
            notices=tuple(data["notices"]),
            unused=tuple(UnusedField(**field) for field in data["unused"]),
            examples=tuple(map(Example.from_json, data["examples"])),
        )


def refuse_if_nothing_is_trained(facts: DataFacts) -> None:
    """Raise WorkbenchError if no training record has a token to train on."""

    if facts.train_records:
        return
    if facts.lost_reply:
        raise WorkbenchError(
            f"All {facts.lost_reply} records lost their response to truncation at {facts.max_length} tokens.",
            f"Raise data.max_length; the longest record has {facts.lengths.max} tokens.",
            kind="data_no_tokens",
        )
    reasons = "; ".join(f"{reason}: {count}" for reason, count in list(facts.skipped_reasons.items())[:3])
    cure = media_question(facts.skipped_reasons, ()) or "Check the records, data.format and data.columns."
    raise WorkbenchError(
        f"The dataset has no usable record{f' ({reasons})' if reasons else ''}.",
        cure,
        kind="data_no_tokens",
    )


def records_text(count: int) -> str:
    """``1 record`` or ``2 records``."""
    return "1 record" if count == 1 else f"{count:,} records"
