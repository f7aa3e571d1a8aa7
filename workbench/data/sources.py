"""Where records come from: a bundled set, local files, a folder of documents, a hub data set, or a mix of them.

A source is opened by looking at its first rows only; the rest is read as it is needed, in constant memory.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.data.records.conversation import BadRecord, Conversation
from workbench.data.records.convert import convert
from workbench.data.records.formats import RecordFormat, detect
from workbench.data.records.unused import Unused
from workbench.data.rows.documents import is_document, read_document
from workbench.data.rows.hub import hub_rows
from workbench.data.rows.readers import can_read, known_suffixes, read_rows
from workbench.data.rows.row import Row, shown
from workbench.errors import WorkbenchError
from workbench.recipe.schema import DataSection
from workbench.storage.folders import files_below
from workbench.storage.paths import Home

_BUNDLED = Path(__file__).resolve().parents[2] / "presets" / "datasets"
_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+|[\w-]+)(?::(?P<config>[\w.+-]+))?(?P<streaming>\?streaming)?")
_SLICE = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?")
# Rows looked at to tell the format.
_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One record, converted; or ``problem``, the reason it was skipped.

    ``held_out``: for evaluation; ``apart``: out of a held-out part that the source has of its own. ``fraction``: how
    far into the source it lies, 0 to 1.
    """

    content: Conversation | str | None
    where: str
    held_out: bool = False
    apart: bool = False
    fraction: float = 0.0
    problem: str = ""
    unused: tuple[Unused, ...] = ()

    def holds(self, text: str) -> bool:
        """Whether the record's own text holds ``text``, in any case."""
        texts = [self.content] if isinstance(self.content, str) else self.content.texts if self.content else []
        return any(text.casefold() in part.casefold() for part in texts)


@dataclass(frozen=True)
class Source:
    """One opened source. ``rows`` reads it from its start each time it is called, from ``files``; a stream has None."""

    name: str
    rows: Callable[[], Iterator[Row]]
    form: RecordFormat
    weight: float = 1.0
    held_out_rows: Callable[[], Iterator[Row]] | None = None
    documents: bool = False
    files: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class Records:
    """The records of a recipe's data section, train and held-out part.

    ``documents``: they are whole documents, to be cut into chunks rather than cut off.
    """

    sources: tuple[Source, ...]
    eval_fraction: float
    stop_at_malformed: bool
    home: Home | None = None

    @property
    def format(self) -> str:
        """The kinds of format, joined where sources differ."""
        return ", ".join(dict.fromkeys(source.form.kind for source in self.sources))

    @property
    def reason(self) -> str:
        """Why the records are taken to have that format."""
        if len(self.sources) == 1:
            return self.sources[0].form.reason
        return "; ".join(f"{source.name}: {source.form.reason}" for source in self.sources)

    @property
    def documents(self) -> bool:
        return all(source.documents for source in self.sources)

    def items(self) -> Iterator[Item]:
        """Every record once (or as often as its source's weight says), those held out marked.

        Raises:
            WorkbenchError: a source cannot be read on; or a row is malformed and the recipe says to stop there.
        """
        for number, source in enumerate(self.sources):
            share, done = 1 / len(self.sources), number / len(self.sources)
            split = _HeldOut(0.0 if source.held_out_rows else self.eval_fraction)
            for index, row in enumerate(source.rows()):
                item = self._item(row, source)
                item = replace(
                    item, held_out=item.content is not None and split.next(), fraction=done + share * row.fraction
                )
                times = _times(index, source.weight)
                yield from [item] * (min(times, 1) if item.held_out or item.content is None else times)
            for row in source.held_out_rows() if source.held_out_rows else ():
                yield replace(self._item(row, source), held_out=True, apart=True, fraction=done + share)

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


class _HeldOut:
    """Picks the share of records to hold out: one at random, but always the same, of each block of 1 / share records.

    The first block's is its second record, so that even two records have a held-out one.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._count = 0

    def next(self) -> bool:
        """Whether the next usable record is held out."""
        index, self._count = self._count, self._count + 1
        if not self._share:
            return False
        block = int(index * self._share + 1e-9)
        start = -int(-(block / self._share - 1e-9) // 1)
        size = max(-int(-((block + 1) / self._share - 1e-9) // 1) - start, 1)
        digest = hashlib.blake2b(block.to_bytes(8, "little"), digest_size=8).digest()
        pick = int.from_bytes(digest, "little") % size if block else min(1, size - 1)
        return index - start == pick


def load_records(data: DataSection, home: Home | None = None) -> Records:
    """Open the source of a recipe. Several are joined by `` + ``, each with a weight behind ``*`` if it is to have one:
    ``first-mate*0.5 + notes/ + tatsu-lab/alpaca``. A weight of 0.5 takes every second record, 2 takes each twice.

    Raises:
        WorkbenchError: there is no such source, or its first rows cannot be read or have no known format.
    """
    sources = tuple(_open(*_weight(part.strip()), data, home) for part in _parts(data.source))
    if len({source.documents for source in sources}) > 1:
        raise WorkbenchError(
            f"{data.source} mixes folders of documents with records.",
            "Train on one kind at a time.",
            kind="data_format",
        )
    return Records(sources, data.eval_fraction, data.malformed == "stop", home)


def bundled_names() -> list[str]:
    """Names of the sets that ship with the workbench."""
    return sorted(path.stem for path in _BUNDLED.glob("*.jsonl") if not path.stem.endswith(".eval"))


def parts_elsewhere(source: str) -> list[str]:
    """The parts of a source that are no bundled set and nothing on this machine, such as hub data sets."""
    return [part for part in _parts(source) if not _is_here(part)]


def needs_hub(source: str) -> bool:
    """Whether to open a source means to ask the hub; what is missing on this machine and can be no hub id does not."""
    return any(_may_be_hub_id(part.partition("*")[0].strip()) for part in parts_elsewhere(source))


def _may_be_hub_id(name: str) -> bool:
    path = Path(name)
    looks_local = name.startswith((".", "/", "~", "\\")) or can_read(path) or is_document(path) or name.endswith("/")
    return not looks_local and "/" in name and _HUB_ID.fullmatch(name) is not None


def _parts(source: str) -> list[str]:
    return [source] if Path(source).expanduser().exists() else re.split(r"\s\+\s", source)


def _is_here(part: str) -> bool:
    """Whether a part, with or without its weight, is a bundled set or a path."""
    names = (part.strip(), part.rpartition("*")[0].strip())
    return any(name and (name in bundled_names() or Path(name).expanduser().exists()) for name in names)


def _weight(part: str) -> tuple[str, float]:
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


def _times(index: int, weight: float) -> int:
    """How often the record at ``index`` is used: ⌊(i+1)·weight⌋ − ⌊i·weight⌋, which is ``weight`` times on average."""
    return int((index + 1) * weight + 1e-9) - int(index * weight + 1e-9)


def _open(name: str, weight: float, data: DataSection, home: Home | None) -> Source:
    rows, held_out, documents, files = _find(name, data, home)
    form = _look(name, rows, data)
    return Source(name, rows, form, weight, held_out, documents, files)


Rows = Callable[[], Iterator[Row]]
Found = tuple[Rows, Rows | None, bool, tuple[Path, ...] | None]


def _find(name: str, data: DataSection, home: Home | None) -> Found:
    """How to read a source, its own held-out part if it has one, whether it is documents, and the files it lies in."""
    bundled = _BUNDLED / f"{name}.jsonl"
    path = bundled if name in bundled_names() else Path(name).expanduser()
    if path.is_dir():
        return _folder(path, data.split)
    if path.exists():
        if is_document(path):
            return (lambda: iter([read_document(path)])), None, True, (path,)
        _start, _stop = _slice(data.split)
        own = path.with_name(f"{path.stem}.eval{path.suffix}")
        held_out = (lambda: read_rows(own)) if own.exists() else None
        files = (path, own) if held_out else (path,)
        return (lambda: islice(read_rows(path), _start, _stop)), held_out, False, files
    match = _HUB_ID.fullmatch(name)
    looks_local = name.startswith((".", "/", "~", "\\")) or can_read(path) or is_document(path) or name.endswith("/")
    if looks_local or match is None:
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
    rows, held_out, hub_files = hub_rows(match["name"], match["config"], data.split, bool(match["streaming"]))
    return rows, held_out, False, hub_files


def _folder(folder: Path, split: str) -> Found:
    """A folder's documents; where it holds none, its files of records, one after the other."""
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
        return (lambda: islice(read_documents(), start, stop)), None, True, tuple(documents)
    if records:
        return (lambda: islice(read_records(), start, stop)), None, False, tuple(records)
    raise WorkbenchError(
        f"The folder {shown(folder)} has no supported files ({len(files)} files).",
        f"Supported: .txt or .md documents, or record files: {known_suffixes()}.",
        kind="data_empty",
    )


def _slice(split: str) -> tuple[int | None, int | None]:
    """First row and end of ``train[10:20]``; of a local source the name before it says nothing.

    Raises:
        WorkbenchError: the slice is in percent, which needs a Hugging Face data set, or no slice at all.
    """
    match = _SLICE.fullmatch(split)
    if match is None:
        raise WorkbenchError(
            f"data.split {split!r} is not a valid slice of a local file.",
            "Write it as train[:2000]; percentages work only with Hugging Face datasets.",
            kind="data_source",
        )
    return tuple(int(match[end]) if match[end] else None for end in ("start", "stop"))  # type: ignore[return-value]


def _look(name: str, rows: Rows, data: DataSection) -> RecordFormat:
    """The format, from the first rows.

    Raises:
        WorkbenchError: there are none, none can be read, or they have no known format.
    """
    columns: dict[str, None] = {}
    samples: list[dict[str, Any]] = []
    first_problem = ""
    seen = 0
    for row in islice(rows(), _LOOKED_AT):
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
