"""Tokens on disk, so that records are tokenised once: the next run over the same ones begins at once.

The same means: files that nobody has touched, an equal tokenizer, template and data section, and this very code.
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
from typing import Any

from workbench.data.facts import DataFacts
from workbench.data.sources import Records
from workbench.data.templates.template import Template
from workbench.data.token_file import dataset_of
from workbench.data.tokenize import rust_tokenizer
from workbench.recipe.schema import DataSection
from workbench.storage.atomic import write_text
from workbench.storage.disk_cache import DiskCache

# Fewer are tokenised in some tenths of a second.
_LEAST_BYTES = 1_000_000
_PARTS = ("train.arrow", "held-out.arrow")
# Size and times of both parts when their digests were last found right.
_VERIFIED = "verified.json"


class TokenStore:
    """The place of one data set on the shelf; it has none where its like could not be told from another one's."""

    def __init__(self, records: Records, template: Template, data: DataSection) -> None:
        self._sources = records.sources
        self._stamps = self._now() if records.home else None
        self._what = f"{data.source}, at most {data.max_length} tokens per record"
        identity = None
        if self._stamps and sum(stamp[1] for stamp in self._stamps) >= _LEAST_BYTES / 20:
            identity = _identity(records, template, data)
        self._cache = DiskCache.of(records.home, "tokens") if records.home and identity else None
        text = json.dumps([identity, self._stamps], sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:24]

    def load(self) -> tuple[Any, Any, DataFacts] | None:
        """Both parts as data sets, and the facts; None where they are not here whole."""
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
        """The facts alone, with the padding of another micro-batch."""
        from workbench.data.packing import padding_waste

        if (found := self.load()) is None:
            return None
        train, _, facts = found
        lengths = [length for part in train.data.column("input_ids").chunks for length in part.value_lengths().tolist()]
        return replace(facts, padding_waste=padding_waste(lengths, batch_size))

    def keep(self, train: Path, held_out: Path, facts: DataFacts) -> None:
        """Keep both files under a second name, which costs neither time nor room: nobody writes into them any more.

        Not if the records were touched while they were read, or are too few to matter.
        """
        size = train.stat().st_size + held_out.stat().st_size
        if self._cache is None or size < _LEAST_BYTES or self._now() != self._stamps:
            return
        folder = None
        try:
            if reason := self._cache.make_room(self._key, size):
                raise OSError(reason)
            folder = self._cache.begin(self._key)
            for file, name in zip((train, held_out), _PARTS, strict=True):
                os.link(file, folder / name)
            digests = {name: _digest(folder / name) for name in _PARTS}
            # Shares are told rounded; here nothing may be lost.
            exact = {"padding_waste": facts.padding_waste, "packed_waste": facts.packed_waste}
            about = {"digests": digests, "facts": facts.as_json() | exact}
            (folder / "facts.json").write_text(json.dumps(about), encoding="utf-8")
            self._cache.put(self._key, folder, {"what": self._what})
        except OSError as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            print(f"The tokens cannot be cached: {error}.", flush=True)

    def _now(self) -> list[tuple[str, int, int, int]] | None:
        """What the system knows of the files; it notes the time whenever one is written, whatever its age says.

        None for what is no file.
        """
        stamps = []
        for source in self._sources:
            if source.files is None:
                return None
            for file in source.files:
                try:
                    found = file.stat()
                except OSError:
                    return None
                stamps.append((str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        return stamps


def _identity(records: Records, template: Template, data: DataSection) -> Mapping[str, Any] | None:
    """All that decides which tokens a record becomes; None where a tokenizer does something that cannot be seen."""
    tokenizer = template.tokenizer
    backend = rust_tokenizer(tokenizer)
    if backend is None:
        return None
    return {
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "special": [tokenizer.special_tokens_map, tokenizer.all_special_tokens, tokenizer.pad_token_id],
        "template": [template.name, template.source, template.system, template.notices],
        # Some templates write the day into every prompt.
        "day": str(date.today()) if "strftime_now" in template.source else "",
        "forms": [repr(source.form) for source in records.sources],
        "data": data.model_dump(exclude={"packing"}),
        "code": _code(),
    }


@cache
def _code() -> list[str]:
    """What turns records into tokens: the source of this package, and the libraries it asks."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return [digest.hexdigest(), *(version(name) for name in ("transformers", "tokenizers", "jinja2", "datasets"))]


def _is_whole(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether both parts are as they were written. They are read for it only if touched since the last time."""
    stamps = {}
    for name in _PARTS:
        found = (folder / name).stat()
        stamps[name] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
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
