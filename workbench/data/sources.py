"""Opens a recipe's data source and reads its records: a bundled dataset, local files, a hub dataset, or a mix of them.

Opening a source reads only its first rows, to detect their format. The rest is read when needed, in constant memory.
"""

import difflib
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

from workbench.data.records.conversation import BadRecord, Conversation
from workbench.data.records.convert import convert
from workbench.data.records.formats import RecordFormat, detect
from workbench.data.records.unused import Unused
from workbench.data.rows.documents import is_document, read_document
from workbench.data.rows.hub import hub_rows
from workbench.data.rows.readers import can_read, known_suffixes, read_rows
from workbench.data.rows.row import ReadRows, Row, RowSource, shown
from workbench.data.rows.trees import joined_trees
from workbench.errors import WorkbenchError
from workbench.recipe.schema import DataSection
from workbench.storage.folders import files_below
from workbench.storage.paths import Home

_BUNDLED = Path(__file__).resolve().parents[2] / "presets" / "datasets"
_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+|[\w-]+)(?::(?P<config>[\w.+-]+))?(?P<streaming>\?streaming)?")
_SLICE = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?")
# Rows that are read to detect the format.
_FORMAT_ROWS = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One record.

    Attributes:
        content: a conversation or plain text; None if the record is skipped, and then ``problem`` says why.
        where: file and line, or another place to name in a message.
        held_out: used for evaluation, not for training.
        from_eval_split: comes from the source's own eval split, not from the split that is trained on.
        fraction: its position in the source, 0 to 1.
        unused: columns that are filled but not fed.
    """

    content: Conversation | str | None
    where: str
    held_out: bool = False
    from_eval_split: bool = False
    fraction: float = 0.0
    problem: str = ""
    unused: tuple[Unused, ...] = ()

    def contains(self, text: str) -> bool:
        """Whether ``text`` occurs in the record's text, ignoring case."""
        texts = [self.content] if isinstance(self.content, str) else self.content.texts if self.content else []
        return any(text.casefold() in part.casefold() for part in texts)


@dataclass(frozen=True)
class Source:
    """One opened source: how to read its rows, their format, and its weight in the mix."""

    name: str
    reading: RowSource
    form: RecordFormat
    weight: float = 1.0


@dataclass(frozen=True)
class Records:
    """All records of a recipe's data section: those to train on and those held out for evaluation."""

    sources: tuple[Source, ...]
    eval_fraction: float
    stop_at_malformed: bool
    home: Home | None = None

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
    def documents(self) -> bool:
        """Whether the records are whole documents, which are split into chunks instead of truncated."""
        return all(source.reading.documents for source in self.sources)

    def items(self) -> Iterator[Item]:
        """Yield the records, each as often as its source's weight says.

        Held-out records are yielded at most once, and skipped ones always once, so that all of them are counted.

        Raises:
            WorkbenchError: a source cannot be read, or a row is malformed and ``data.malformed`` is ``stop``.
        """
        for number, source in enumerate(self.sources):
            share, done = 1 / len(self.sources), number / len(self.sources)
            eval_rows = source.reading.eval_rows
            held_out = _HeldOutSampler(0.0 if eval_rows else self.eval_fraction)
            for index, row in enumerate(source.reading.rows()):
                item = self._item(row, source)
                is_held_out = item.content is not None and held_out.takes_next()
                item = replace(item, held_out=is_held_out, fraction=done + share * row.fraction)
                times = _repetitions(index, source.weight)
                if item.content is None:
                    times = 1
                elif item.held_out:
                    times = min(times, 1)
                yield from repeat(item, times)
            for row in eval_rows() if eval_rows else ():
                yield replace(self._item(row, source), held_out=True, from_eval_split=True, fraction=done + share)

    def _item(self, row: Row, source: Source) -> Item:
        if row.record is None:
            if self.stop_at_malformed:
                raise WorkbenchError(
                    f"{row.where}, {row.problem}.",
                    "Correct it, or set data.malformed to skip: bad lines are then skipped and counted.",
                    kind="data_malformed",
                )
            return Item(None, row.where, problem=row.problem)
        try:
            converted = convert(row.record, source.form)
        except BadRecord as error:
            return Item(None, row.where, problem=str(error))
        return Item(converted.content, row.where, unused=converted.unused)


class _HeldOutSampler:
    """Selects the records to hold out: one per block of 1 / share records, pseudo-random but always the same.

    In the first block it is the second record, so that even a dataset of two has one held out. Changing this changes
    which records existing runs are evaluated on.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._count = 0

    def takes_next(self) -> bool:
        """Whether the next usable record is held out."""
        index, self._count = self._count, self._count + 1
        if not self._share:
            return False
        block = int(index * self._share + 1e-9)
        # The tolerance keeps 0.1 * 10 from being a little less than 1.
        start = math.ceil(block / self._share - 1e-9)
        size = max(math.ceil((block + 1) / self._share - 1e-9) - start, 1)
        digest = hashlib.blake2b(block.to_bytes(8, "little"), digest_size=8).digest()
        pick = int.from_bytes(digest, "little") % size if block else min(1, size - 1)
        return index - start == pick


def load_records(data: DataSection, home: Home | None = None) -> Records:
    """Open the source of a recipe.

    A mix joins several sources with `` + ``, each optionally with ``*`` and a weight, as in
    ``first-mate*0.5 + notes/ + tatsu-lab/alpaca``. A weight of 0.5 uses every second record, 2 uses each twice.

    Raises:
        WorkbenchError: there is no such source, its first rows cannot be read, or their format is unknown.
    """
    sources = tuple(_open(*_name_and_weight(part.strip()), data) for part in _parts(data.source))
    if len({source.reading.documents for source in sources}) > 1:
        raise WorkbenchError(
            f"{data.source} mixes folders of documents with records.",
            "Train on one kind at a time.",
            kind="data_format",
        )
    return Records(sources, data.eval_fraction, data.malformed == "stop", home)


def bundled_names() -> list[str]:
    """Names of the datasets that ship with the workbench."""
    return sorted(path.stem for path in _BUNDLED.glob("*.jsonl") if not path.stem.endswith(".eval"))


def remote_parts(source: str) -> list[str]:
    """The parts of a source that are neither bundled nor on this machine, such as hub datasets."""
    return [part for part in _parts(source) if not _is_local(part)]


def needs_hub(source: str) -> bool:
    """Whether opening the source asks the hub. A missing local file does not count."""
    return any(_may_be_hub_id(part.partition("*")[0].strip()) for part in remote_parts(source))


def _may_be_hub_id(name: str) -> bool:
    return not _looks_local(name) and "/" in name and _HUB_ID.fullmatch(name) is not None


def _looks_local(name: str) -> bool:
    path = Path(name)
    return name.startswith((".", "/", "~", "\\")) or can_read(path) or is_document(path) or name.endswith("/")


def _parts(source: str) -> list[str]:
    return [source] if Path(source).expanduser().exists() else re.split(r"\s\+\s", source)


def _is_local(part: str) -> bool:
    """Whether a part, with or without a weight, is a bundled dataset or an existing path."""
    names = (part.strip(), part.rpartition("*")[0].strip())
    return any(name and (name in bundled_names() or Path(name).expanduser().exists()) for name in names)


def _name_and_weight(part: str) -> tuple[str, float]:
    name, star, weight = part.rpartition("*")
    if not star or Path(part).expanduser().exists():
        return part, 1.0
    try:
        value = float(weight)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise WorkbenchError(
            f"{part}: {weight.strip()!r} is not a valid weight.",
            "Give a number above 0, such as notes.jsonl*0.5.",
            kind="data_source",
        )
    return name.strip(), value


def _repetitions(index: int, weight: float) -> int:
    """How often to use the record at ``index``: ⌊(i+1)·weight⌋ − ⌊i·weight⌋, ``weight`` times on average."""
    return int((index + 1) * weight + 1e-9) - int(index * weight + 1e-9)


def _open(name: str, weight: float, data: DataSection) -> Source:
    reading = joined_trees(_row_source(name, data))
    return Source(name, reading, _detect_format(name, reading.rows, data), weight)


def _row_source(name: str, data: DataSection) -> RowSource:
    """Find a source by its name: a bundled dataset, a path, or a hub id."""
    bundled = _BUNDLED / f"{name}.jsonl"
    path = bundled if name in bundled_names() else Path(name).expanduser()
    if path.is_dir():
        return _folder_source(path, data.split)
    if path.exists():
        return _file_source(path, data.split)
    match = _HUB_ID.fullmatch(name)
    if _looks_local(name) or match is None:
        raise WorkbenchError(
            f"No such file or folder: {shown(path)}.",
            f"Give an existing path. Supported: {known_suffixes()}.",
            kind="data_missing",
        )
    if "/" not in name:
        near = difflib.get_close_matches(name, bundled_names(), n=1)
        raise WorkbenchError(
            f"No such dataset: {name!r}.",
            (f"Did you mean {near[0]}? " if near else "")
            + f"Give a bundled dataset ({', '.join(bundled_names())}), a local path, or owner/name of a "
            "hub dataset.",
            kind="data_missing",
        )
    return hub_rows(match["name"], match["config"], data.split, bool(match["streaming"]))


def _file_source(path: Path, split: str) -> RowSource:
    """A document, or a file of records; ``NAME.eval.SUFFIX`` next to it is its eval split."""
    start, stop = _slice(split)
    if is_document(path):
        return RowSource(lambda: islice([read_document(path)], start, stop), documents=True, files=(path,))
    eval_file = path.with_name(f"{path.stem}.eval{path.suffix}")
    has_eval = eval_file.exists()
    return RowSource(
        lambda: islice(read_rows(path), start, stop),
        (lambda: read_rows(eval_file)) if has_eval else None,
        files=(path, eval_file) if has_eval else (path,),
    )


def _folder_source(folder: Path, split: str) -> RowSource:
    """The documents of a folder; if it has none, its files of records, one after the other."""
    files = sorted(path for path, _ in files_below(folder) if not path.name.startswith("."))
    documents = [path for path in files if is_document(path)]
    records = [path for path in files if can_read(path) and path.name not in ("dataset_info.json", "state.json")]
    start, stop = _slice(split)

    def read_documents() -> Iterator[Row]:
        for number, path in enumerate(documents, start=1):
            row = read_document(path)
            yield Row(row.record, row.where, number / len(documents), row.problem)

    def read_records() -> Iterator[Row]:
        for number, path in enumerate(records):
            for row in read_rows(path):
                yield Row(row.record, row.where, (number + row.fraction) / len(records), row.problem)

    if documents:
        return RowSource(lambda: islice(read_documents(), start, stop), documents=True, files=tuple(documents))
    if records:
        return RowSource(lambda: islice(read_records(), start, stop), files=tuple(records))
    raise WorkbenchError(
        f"The folder {shown(folder)} has no supported files ({len(files)} files).",
        f"Supported: .txt or .md documents, or record files: {known_suffixes()}.",
        kind="data_empty",
    )


def _slice(split: str) -> tuple[int | None, int | None]:
    """Parse the slice of ``train[10:20]`` into ``(10, 20)``; the split's name is ignored for local sources.

    Raises:
        WorkbenchError: it is not a valid slice, or one in percent, which only hub datasets support.
    """
    match = _SLICE.fullmatch(split)
    if match is None:
        raise WorkbenchError(
            f"data.split {split!r} is not a valid split of a local source.",
            "Write it as train[:2000]; percentages work only with Hugging Face datasets.",
            kind="data_source",
        )
    start, stop = (int(match[end]) if match[end] else None for end in ("start", "stop"))
    return start, stop


def _detect_format(name: str, rows: ReadRows, data: DataSection) -> RecordFormat:
    """Detect the format from the first rows.

    Raises:
        WorkbenchError: there are no rows, none can be read, or their format is unknown.
    """
    columns: dict[str, None] = {}
    samples: list[dict[str, object]] = []
    first_problem = ""
    seen = 0
    for row in islice(rows(), _FORMAT_ROWS):
        seen += 1
        if row.record is None:
            first_problem = first_problem or f"{row.where}, {row.problem}"
            if data.malformed == "stop":
                break
        for column in row.record or {}:
            columns.setdefault(str(column))
        samples += [row.record] if row.record else []
    if not columns:
        if first_problem:
            raise WorkbenchError(f"{first_problem}.", "Correct the file, or choose another.", kind="data_malformed")
        problem = "is empty" if not seen else "has records without columns"
        raise WorkbenchError(f"{name} {problem}.", "Choose a source with records.", kind="data_empty")
    return detect(list(columns), samples, data.format, data.columns, name)
