"""``loraworkbench data --write``: writes the training records, cleaned, and prints what was left out."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from workbench.commands.common import console, errors, print_json, printable
from workbench.data.dataset_stats import open_data, open_template
from workbench.data.facts import records_text
from workbench.data.prepare.documents import open_documents
from workbench.data.prepare.duplicates import can_find_near
from workbench.data.prepare.write import Cleaned, Cleaning, OverLength, eval_file_of, write_cleaned
from workbench.data.rows.row import shown
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.schema import Recipe
from workbench.storage.paths import Home

# Similar enough to be copies with small changes; records that only share a prompt are less.
NEAR_DUPLICATES = 0.9
_SUFFIXES = (".jsonl", ".json", ".ndjson")
_REASONS_SHOWN = 5


@dataclass(frozen=True)
class WriteOptions:
    """The options of ``--write``.

    Attributes:
        near_duplicates: similarity from which records are dropped; None: the default, if the library is installed.
        overlap: tokens that parts share; None: an eighth of the length for documents, else 0.
    """

    file: Path
    documents: Path | None
    over_length: OverLength
    overlap: int | None
    near_duplicates: float | None
    force: bool


def write_data(home: Home, recipe: Recipe, options: WriteOptions, as_json: bool) -> None:
    """Write the records of a recipe, or the documents of a folder, and print the counts.

    Raises:
        WorkbenchError: the file exists, the records cannot be read, or none is left.
    """
    file = options.file.expanduser()
    _check_target(file, options.force)
    near = options.near_duplicates
    if near is None:
        near = NEAR_DUPLICATES if can_find_near() else 0.0
    data = recipe.data
    others: Counter[str] = Counter()
    with errors.status("reading") as status:

        def report(progress: Progress) -> None:
            share = f" {progress.fraction:.0%}" if progress.fraction is not None else ""
            status.update(Text(printable(f"{progress.phase}{share}  {progress.detail}")))

        records: Records
        template: Template
        if options.documents is not None:
            template = open_template(home, recipe.model, data, report=report)
            documents = open_documents(options.documents.expanduser(), data, home)
            records, others = documents.records, documents.others
        else:
            records, template = open_data(home, recipe, report=report)
        _check_is_no_source(file, records)
        overlap = options.overlap
        if overlap is None:
            overlap = data.max_length // 8 if records.documents else 0
        cleaning = Cleaning(options.over_length, min(overlap, data.max_length // 2), near)
        try:
            cleaned = write_cleaned(records, template, data, file, cleaning, report)
        except OSError as error:
            raise WorkbenchError(
                f"Cannot write {shown(file)}: {error.strerror or error}.", "Check the folder and the disk."
            ) from None
    if options.force and not cleaned.eval_records:
        eval_file_of(file).unlink(missing_ok=True)  # it would be read as the eval split of the new file
    if as_json:
        print_json({**cleaned.as_json(), "near_duplicates_from": near or None, "not_read": dict(others)})
    else:
        _show(cleaned, near, others, data.max_length)


def _check_target(file: Path, force: bool) -> None:
    if file.suffix.lower() not in _SUFFIXES:
        raise WorkbenchError(
            f"{shown(file)} is not a name for JSON lines.", "Name it with the suffix .jsonl.", kind="bad_request"
        )
    existing = next((path for path in (file, eval_file_of(file)) if path.exists()), None)
    if existing is not None and not force:
        raise WorkbenchError(
            f"{shown(existing)} exists already.", "Give another name, or replace it with --force.", kind="exists"
        )


def _check_is_no_source(file: Path, records: Records) -> None:
    """Refuse to replace a file while it is read."""
    targets = {file.resolve(), eval_file_of(file).resolve()}
    for source in records.sources:
        for path in source.reading.files or ():
            if path.resolve() in targets:
                raise WorkbenchError(
                    f"{shown(path)} is a source of the records and would be replaced.",
                    "Give another name with --write.",
                    kind="bad_request",
                )


def _show(cleaned: Cleaned, near: float, others: Counter[str], max_length: int) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _lines(cleaned, near, max_length):
        table.add_row(Text(name, style="dim"), Text(printable(value)))
    console.print(table)
    notices = [f"{change}: {records_text(count)}." for change, count in cleaned.changes.items()]
    if cleaned.not_written:
        listed = ", ".join(f"{path} ({records_text(count)})" for path, count in cleaned.not_written.most_common())
        notices.append(f"Not written: {listed}.")
    if others:
        listed = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(_REASONS_SHOWN))
        notices.append(f"Other files, not read: {listed}.")
    for notice in notices:
        console.print(Text.assemble(("! ", "yellow"), printable(notice)))


def _lines(cleaned: Cleaned, near: float, max_length: int) -> list[tuple[str, str]]:
    reasons = [f"{count:,} {reason}" for reason, count in cleaned.invalid_reasons.most_common(_REASONS_SHOWN)]
    near_text = (
        f"{cleaned.near_duplicates:,} left out (similarity {near:g} and above)"
        if near
        else "not looked for"
        if can_find_near()
        else "not looked for: `pip install 'loraworkbench[dedup]'`"
    )
    split = [("split", f"{cleaned.split:,} into {cleaned.split_into:,} of at most {max_length:,} tokens")]
    lost = [("", f"{cleaned.questions_left_out:,} questions of them left out, over the length alone")]
    return [
        ("read", f"{cleaned.read:,}"),
        ("invalid", f"{cleaned.invalid:,} left out"),
        *[("", reason) for reason in reasons],
        ("duplicates", f"{cleaned.duplicates:,} left out"),
        ("near-duplicates", near_text),
        ("train/eval overlap", f"{cleaned.overlap:,} left out of training"),
        ("over the length", f"{cleaned.over_length:,} left out (over {max_length:,} tokens)"),
        *(split if cleaned.split else []),
        *(lost if cleaned.questions_left_out else []),
        ("written", f"{cleaned.train_records:,} train: {cleaned.files[0]}"),
        *[("", f"{cleaned.eval_records:,} held out: {file}") for file in cleaned.files[1:]],
    ]
