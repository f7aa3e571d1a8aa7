"""The section ``data``: the records, and the text and tokens that they become."""

from typing import Literal

from workbench.recipe.sections.data_source import DataFormat, DataSource
from workbench.recipe.sections.section import Section, setting

BUNDLED_DATA = "first-mate"
MIN_LENGTH = 8
"""The smallest value of ``data.max_length``, in tokens."""


class DataSection(Section):
    source: DataSource = setting(
        BUNDLED_DATA,
        "Dataset: a bundled name, a local file or folder, or a Hugging Face dataset. Several: a.jsonl*0.5 + b.jsonl, "
        "or a list to interleave: [{source: a.jsonl, weight: 2}, {source: b.jsonl}].",
    )
    stopping: Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"] = setting(
        "first_exhausted",
        "When a list of sources ends: with the first exhausted one, when all have been read (smaller ones repeat), or "
        "when all have been read once.",
    )
    format: DataFormat = setting("auto", "Record format. auto: detect it from the column names.")
    columns: dict[str, str] = setting(
        {},
        "Column mapping if auto-detection fails: prompt, input, reply, reasoning, system, history, messages, "
        "tools, segments or text → column.",
    )
    ignore: list[str] = setting(
        [],
        "Fields of records that may stay unused without a question before the run, such as category.",
    )
    malformed: Literal["stop", "skip"] = setting(
        "stop",
        "On bad lines: stop (fail with the line number) or skip (and count). Records without a "
        "response are always skipped and counted.",
    )
    split: str = setting("train", "Split of a Hugging Face dataset. Slices are allowed: train[:2000].", min_length=1)
    eval_fraction: float = setting(
        0.1,
        "Fraction of the records held out for evaluation if the dataset has no eval split.",
        up="more precise evaluation, fewer training records",
        steps=(0.0, 0.05, 0.1, 0.2),
        ge=0.0,
        le=0.5,
    )
    eval_records: int = setting(
        0,
        "Number of records held out for evaluation if the dataset has no eval split. 0: eval_fraction says how many. "
        "Records are counted first, which reads the dataset once more.",
        up="more precise evaluation, fewer training records",
        unit="records",
        steps=(0, 50, 100, 200, 500),
        ge=0,
        le=10_000_000,
    )
    template: str = setting(
        "auto",
        "Chat template. auto: the model's own. Or one of instruction-response, user-assistant, alpaca, chatml, "
        "chatml-tools, plain.",
        min_length=1,
    )
    system: str | None = setting(None, "System prompt for records without one.")
    max_length: int = setting(
        1024,
        "Records are truncated at this many tokens.",
        up="fewer records are truncated; activation memory grows in proportion",
        unit="tokens",
        steps=(128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        ge=MIN_LENGTH,
        le=10_000_000,
    )
    packing: bool = setting(
        False, "Pack several records into each sequence of max_length. The micro-batch then counts sequences."
    )
    completion_only: bool = setting(True, "Compute the loss on the response only, not on the prompt.")
    responses: Literal["all", "last", "each"] = setting(
        "all",
        "Which responses of a conversation are trained: all, only the last one, or each in a record of its own, for "
        "templates that rewrite earlier turns.",
    )
    reasoning: Literal["train", "mask", "drop"] = setting(
        "train",
        "Reasoning in responses: train it, mask it (kept in the text, no loss on it), or drop it from the text.",
    )
