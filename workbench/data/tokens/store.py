"""Caches tokenized datasets on disk, so that the next run over the same records starts at once.

The cache key covers the files' sizes and times, the tokenizer, the template, the data section and this package's code.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.facts import DataFacts
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.data.tokens.file import dataset_of
from workbench.data.tokens.tokenize import rust_tokenizer
from workbench.recipe.data_sources import source_text
from workbench.recipe.sections.data import DataSection
from workbench.storage.atomic import write_text
from workbench.storage.disk_cache import DiskCache

if TYPE_CHECKING:
    from datasets import Dataset

# Smaller datasets are not cached: tokenizing them takes some tenths of a second.
_LEAST_BYTES = 1_000_000
_PARTS = ("train.arrow", "held-out.arrow")
# Size and times of both parts when their checksums were last verified.
_VERIFIED = "verified.json"


class TokenStore:
    """The cache entry of one dataset. Nothing is cached if its records or its tokenizer cannot be identified."""

    def __init__(self, records: Records, template: Template, data: DataSection) -> None:
        self._sources = records.sources
        self._stamps = self._file_stamps() if records.home else None
        self._what = f"{source_text(data.source)}, at most {data.max_length} tokens per record"
        identity = None
        if self._stamps and sum(stamp[1] for stamp in self._stamps) >= _LEAST_BYTES / 20:
            identity = _identity(records, template, data)
        self._cache = DiskCache.of(records.home, "tokens") if records.home and identity else None
        text = json.dumps([identity, self._stamps], sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:24]

    def load(self) -> "tuple[Dataset, Dataset, DataFacts] | None":
        """The training and held-out datasets and their statistics; None if they are not cached."""
        if self._cache is None or (folder := self._cache.find(self._key)) is None:
            return None
        try:
            about = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            if not _is_whole(folder, about["digests"]):
                raise ValueError("a file is damaged")
            train, held_out = (dataset_of(folder / name) for name in _PARTS)
            return train, held_out, DataFacts.from_json(about["facts"])
        except (OSError, ValueError, KeyError, TypeError):
            self._cache.remove(self._key)
            return None

    def facts(self, batch_size: int) -> DataFacts | None:
        """The cached statistics, with the padding waste for this micro-batch size; None if they are not cached."""
        from workbench.data.tokens.packing import padding_waste

        if (cached := self.load()) is None:
            return None
        train, _, facts = cached
        lengths = [length for part in train.data.column("input_ids").chunks for length in part.value_lengths().tolist()]
        return replace(facts, padding_waste=padding_waste(lengths, batch_size))

    def save(self, train: Path, held_out: Path, facts: DataFacts) -> None:
        """Add the finished token files to the cache as hard links, which takes neither time nor disk space.

        Nothing is saved if the source files were changed while they were read, or if the dataset is small.
        """
        size = train.stat().st_size + held_out.stat().st_size
        if self._cache is None or size < _LEAST_BYTES or self._file_stamps() != self._stamps:
            return
        folder = None
        try:
            if reason := self._cache.make_room(self._key, size):
                raise OSError(reason)
            folder = self._cache.begin(self._key)
            for file, name in zip((train, held_out), _PARTS, strict=True):
                os.link(file, folder / name)
            digests = {name: _digest(folder / name) for name in _PARTS}
            # as_json rounds these shares.
            exact = {"padding_waste": facts.padding_waste, "packed_waste": facts.packed_waste}
            about = {"digests": digests, "facts": facts.as_json() | exact}
            (folder / "facts.json").write_text(json.dumps(about), encoding="utf-8")
            self._cache.put(self._key, folder, {"what": self._what})
        except OSError as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            print(f"The tokens cannot be cached: {error}.", flush=True)

    def _file_stamps(self) -> list[tuple[str, int, int, int]] | None:
        """Path, size, mtime and ctime of the source files; None if a source is not in files.

        The ctime changes with every write, even if somebody sets the mtime back.
        """
        stamps = []
        for source in self._sources:
            if source.reading.files is None:
                return None
            for file in source.reading.files:
                try:
                    status = file.stat()
                except OSError:
                    return None
                stamps.append((str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return stamps


def _identity(records: Records, template: Template, data: DataSection) -> Mapping[str, object] | None:
    """Everything that decides how records are tokenized; None for a tokenizer whose behavior cannot be identified."""
    tokenizer = template.tokenizer
    backend = rust_tokenizer(tokenizer)
    if backend is None:
        return None
    return {
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "special": [tokenizer.special_tokens_map, tokenizer.all_special_tokens, tokenizer.pad_token_id],
        "template": [template.name, template.source, template.system, template.notices],
        # Some templates write the date into every prompt.
        "day": str(date.today()) if "strftime_now" in template.source else "",
        "forms": [repr(source.form) for source in records.sources],
        "kind": records.kind,
        "data": data.model_dump(exclude={"packing"}),
        "code": _code(),
    }


@cache
def _code() -> list[str]:
    """A checksum of this package's code, and the versions of the libraries that take part in tokenizing."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    libraries = ("transformers", "tokenizers", "jinja2", "datasets", "charset-normalizer")
    return [digest.hexdigest(), *map(version, libraries)]


def _is_whole(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether both parts have their original checksums. They are read only if changed since the last verification."""
    stamps = {}
    for name in _PARTS:
        status = (folder / name).stat()
        stamps[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    with suppress(OSError, ValueError):
        if json.loads((folder / _VERIFIED).read_text(encoding="utf-8")) == stamps:
            return True
    if any(_digest(folder / name) != digests[name] for name in _PARTS):
        return False
    with suppress(OSError):
        write_text(folder / _VERIFIED, json.dumps(stamps), private=True)
    return True


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
