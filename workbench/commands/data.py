"""``loraworkbench data``: statistics of a dataset and its formatted training text, before a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from workbench.commands.common import JsonOption, SetOption, console, errors, home_of, print_json, printable
from workbench.commands.data_write import NEAR_DUPLICATES, WriteOptions, write_data
from workbench.data.dataset_stats import dataset_stats
from workbench.data.facts import DataFacts, Example, refuse_if_nothing_is_trained
from workbench.data.prepare.write import OverLength
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.data_sources import typed_source
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit, parse_assignment

_BAR_WIDTH = 30
_HISTOGRAM_LINES = 12
_LONGEST_SHOWN = 3


def data(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="A bundled dataset, a file, a folder or a Hugging Face dataset; several: a.jsonl*0.5 + b.jsonl, or a "
            "list to interleave: [{source: a.jsonl, weight: 2}, {source: b.jsonl}]."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model whose tokenizer and template are used. Default: the demo model.")
    ] = None,
    assignments: SetOption = None,
    show: Annotated[int, typer.Option(min=0, help="Records to show as formatted training text.")] = 3,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the training records as JSON lines, without duplicates, train/eval overlap and long records; "
            "held-out records go into FILE's .eval file.",
        ),
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --write: the documents of a folder (PDF, HTML, DOCX, Markdown, text) instead of a source, in "
            "overlapping chunks.",
        ),
    ] = None,
    over_length: Annotated[
        OverLength, typer.Option(help="With --write: leave out records over data.max_length, or split them.")
    ] = "leave-out",
    overlap: Annotated[
        int | None,
        typer.Option(min=0, help="With --write: tokens that parts of a split text share. Documents: an eighth."),
    ] = None,
    near_duplicates: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help=f"With --write: similarity that makes near-duplicates. Default {NEAR_DUPLICATES}; 0: off.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --write: replace the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count records and tokens (trained and masked) and show the first records as formatted training text."""
    if (source is None) == (documents is None):
        raise WorkbenchError(
            "Give one of SOURCE and --documents.", "See loraworkbench data --help.", kind="bad_request"
        )
    changes = {"data.source": typed_source(source)} if source is not None else {}
    changes |= {"model.source": model} if model else {}
    recipe = edit(Recipe(), {**changes, **dict(parse_assignment(text) for text in assignments or [])})
    home = home_of(context)
    if write is not None:
        options = WriteOptions(write, documents, over_length, overlap, near_duplicates, force)
        write_data(home, recipe, options, as_json)
        return
    if documents is not None:
        raise WorkbenchError(
            "--documents needs --write.", "Add --write FILE.jsonl, then train on that file.", kind="bad_request"
        )
    with errors.status("reading") as status:
        # The statistics of a sample come first; only those of all records are shown.
        *_, facts = dataset_stats(
            home, recipe, show=show, report=lambda progress: status.update(Text(printable(_progress_text(progress))))
        )
    if as_json:
        print_json(facts.as_json())
    else:
        _show(facts, recipe)
    refuse_if_nothing_is_trained(facts)


def _progress_text(progress: Progress) -> str:
    share = f" {progress.fraction:.0%}" if progress.fraction is not None else ""
    return f"{progress.phase}{share}  {progress.detail}"


def _show(facts: DataFacts, recipe: Recipe) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _rows(facts, recipe):
        table.add_row(Text(name, style="dim"), Text(printable(value)))
    console.print(table)
    _show_lengths(facts)
    for notice in (*facts.questions, *facts.notices):
        console.print(Text.assemble(("! ", "yellow"), printable(notice)))
    for example in facts.examples:
        console.print(_example(example))


def _rows(facts: DataFacts, recipe: Recipe) -> list[tuple[str, str]]:
    training, packing = recipe.training, recipe.data.packing
    share = facts.trained / max(facts.total, 1)
    waste = f"padding {facts.padding_waste:.1%} of a batch of {training.largest_micro_batch}"
    return [
        ("records", f"{facts.records:,}"),
        ("", f"{facts.train_records:,} train, {facts.eval_records:,} held out, {facts.skipped:,} invalid"),
        ("format", f"{facts.format}: {facts.reason}"),
        ("template", f"{facts.template}, {facts.padding}"),
        ("tokens", f"{facts.total:,}: {facts.trained:,} trained ({share:.0%}), {facts.masked:,} masked"),
        ("truncated", f"{facts.truncated:,} records truncated at {facts.max_length} tokens, {facts.cut:,} tokens lost"),
        (
            "length",
            f"median {facts.lengths.p50:,}, p90 {facts.lengths.p90:,}, p99 {facts.lengths.p99:,}, max "
            f"{facts.lengths.max:,}",
        ),
        *_longest(facts),
        ("packing", f"{waste}; packed {facts.packed_sequences:,} sequences with {facts.packed_waste:.1%}"),
        ("duplicates", f"{facts.duplicates:,}, train/eval overlap {facts.overlap:,}"),
        ("near-empty", f"{facts.near_empty:,}"),
        ("steps", f"{facts.steps_per_epoch(training, packing):,} per epoch, {facts.steps(training, packing):,} total"),
    ]


def _longest(facts: DataFacts) -> list[tuple[str, str]]:
    """Rows for the longest records; ``--json`` lists more."""
    rows: list[tuple[str, str]] = []
    for index, location, tokens in facts.longest[:_LONGEST_SHOWN]:
        cut = f", {tokens - facts.max_length:,} truncated" if tokens > facts.max_length else ""
        rows.append(("" if rows else "longest", f"{tokens:,} tokens{cut}: record {index + 1:,}, {location}"))
    return rows


def _show_lengths(facts: DataFacts) -> None:
    """Draw a histogram of record lengths; lengths that are truncated have another color and character."""
    bins = facts.lengths.histogram
    bins_per_line = -(-len(bins) // _HISTOGRAM_LINES) or 1
    lines = [bins[first : first + bins_per_line] for first in range(0, len(bins), bins_per_line)]
    largest = max((sum(count for _, _, count in line) for line in lines), default=0)
    ascii_only = (console.encoding or "").lower().replace("-", "") != "utf8"
    for line in lines:
        start, end, count = line[0][0], line[-1][1] - 1, sum(count for _, _, count in line)
        is_truncated = start >= facts.max_length
        character = ("=" if is_truncated else "#") if ascii_only else ("▒" if is_truncated else "█")
        bar = character * max(round(count / largest * _BAR_WIDTH), count > 0)
        console.print(
            Text.assemble(
                (f"{start:>7,}-{end:<7,} ", "dim"),
                (bar.ljust(_BAR_WIDTH), "yellow" if is_truncated else "cyan"),
                f" {count:,}",
            )
        )


def _example(example: Example) -> Text:
    """The text of a record; of a pair, the chosen side and then what is different in the rejected one.

    Trained tokens are colored, and underlined too for terminals without color.
    """
    heading = f"\nrecord {example.index + 1}  {example.where}  {example.tokens:,} tokens"
    heading += f", {example.cut:,} truncated" if example.cut else ""
    heading += ", held out" if example.held_out else ""
    heading += "" if example.good is None else ", good" if example.good else ", bad"
    heading += "" if example.label is None else f", label {example.label}"
    text = Text(printable(heading) + "\n", style="bold")
    if example.rejected is None:
        _append_tokens(text, example, 0)
        return text
    text.append("chosen\n")
    _append_tokens(text, example, 0)
    rejected = example.rejected
    cut = f", {rejected.cut:,} truncated" if rejected.cut else ""
    text.append(f"\nrejected  {rejected.tokens:,} tokens{cut}, from where they part\n")
    _append_tokens(text, rejected, example.parts_at)
    return text


def _append_tokens(text: Text, example: Example, first: int) -> None:
    """Append the text of an example's tokens from a character on."""
    for start, end, trained in example.spans:
        piece = printable(example.text[max(start, first) : max(end, first)])
        text.append(piece, style="not bold green underline" if trained else "not bold dim")
