"""Reads and updates the user's settings, ``settings.json`` in the home.

The user may edit the file at any time. So every program re-reads it, and writes only the keys that it changed. Keys
that this version does not know stay in the file.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from workbench.storage.atomic import write_text
from workbench.storage.paths import Home


class _Group(BaseModel):
    """A group of settings. Unknown keys are kept, values are not coerced."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)


class EngineSettings(_Group):
    unload_after_minutes: float = Field(
        default=10,
        ge=0,
        description="Minutes without use after which the engine unloads its model; 0 never unloads it.",
    )
    stop_after_minutes: float = Field(
        default=30,
        ge=0,
        description="Minutes without a request or work after which the engine exits; 0 keeps it running.",
    )


class CacheSettings(_Group):
    quantised_gb: float = Field(
        default=20, ge=0, lt=1e6, description="Gigabytes (10^9 bytes) of quantized bases to keep on disk; 0 keeps none."
    )
    tokens_gb: float = Field(
        default=5,
        ge=0,
        lt=1e6,
        description="Gigabytes (10^9 bytes) of tokenized datasets to keep on disk; 0 keeps none.",
    )


class JudgeSettings(_Group):
    url: str = Field(
        default="", description="Base URL of an OpenAI-compatible endpoint that compares replies; empty: no judge."
    )
    model: str = Field(default="", description="Name of the judge's model at the endpoint.")
    token_variable: str = Field(
        default="",
        description="Environment variable with the endpoint's token, which is never stored; empty: no token.",
    )


class SlurmSettings(_Group):
    partition: str = Field(default="", description="Partition of jobs that `train --slurm` submits; empty: Slurm's.")
    time: str = Field(default="", description="Time limit of these jobs, such as 12:00:00; empty: the partition's.")
    gres: str = Field(
        default="", description="GPUs of a machine for these jobs, such as gpu:a100:1; none: no GPU; empty: any GPU."
    )
    sbatch: tuple[str, ...] = Field(
        default=(), strict=False, description="Other options of sbatch for these jobs, such as mem=64G, account=me."
    )


class Settings(_Group):
    """All settings. A key that is missing or invalid in the file has its default value."""

    theme: str | None = Field(default=None, description="Name of the app's theme; null for the dark one.")
    tab: str | None = Field(default=None, description="The tab that opens first; null for Models.")
    recipe: dict[str, object] | None = Field(
        default=None, description="The app's recipe when it was last closed, as plain data; null for the default one."
    )
    preset_name: str | None = Field(
        default=None, description="output.name of the preset that was loaded last; dropped with its model or dataset."
    )
    run_columns: list[str] | None = Field(
        default=None, description="The columns of the list of runs, in their order; null for the default ones."
    )
    keys: dict[str, str] = Field(
        default={}, description="Keys by the name of their action, such as run.stop: ctrl+s; all others have their own."
    )
    notify: bool = Field(
        default=True, description="Whether the end of a run is notified: by the terminal, with a bell and its title."
    )
    memory_limit: int | None = Field(
        default=None, gt=0, description="Memory limit in bytes that the app checks the fit against; null: what is free."
    )
    on_end: str | None = Field(
        default=None,
        description="Command that the engine calls at the end of each run, without a shell; it gets the journal's last "
        "event as JSON on standard input.",
    )
    llama_cpp: str | None = Field(
        default=None,
        description="Folder of llama.cpp, a checkout or an installation, that converts and quantizes GGUF files; null "
        "to look on PATH.",
    )
    engine: EngineSettings = Field(default=EngineSettings(), description="When an idle engine exits.")
    cache: CacheSettings = Field(default=CacheSettings(), description="Maximum disk space per cache.")
    judge: JudgeSettings = Field(default=JudgeSettings(), description="The model that `loraworkbench judge` asks.")

    slurm: SlurmSettings = Field(default=SlurmSettings(), description="The options of jobs on a Slurm cluster.")

    _problems: tuple[str, ...] = PrivateAttr(())

    @property
    def problems(self) -> tuple[str, ...]:
        """Dotted keys with invalid values; just ``settings.json`` if the whole file is unreadable."""
        return self._problems

    @classmethod
    def of(cls, data: Mapping[str, object], problems: tuple[str, ...] = ()) -> Self:
        """Settings from the file's data; invalid values are dropped and listed in :attr:`problems`."""
        try:
            settings = cls.model_validate(data)
        except ValidationError as error:
            invalid = {_key(detail["loc"], data) for detail in error.errors(include_url=False)}
            return cls.of(_without(data, invalid), (*problems, *sorted(".".join(key) for key in invalid)))
        settings._problems = problems
        return settings


def read(home: Home) -> Settings:
    """The settings that are in the file now; the defaults if there is no file."""
    try:
        return Settings.of(_load(home))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError):
        return Settings.of({}, (home.settings.name,))


def update(home: Home, changes: Mapping[str, object]) -> None:
    """Change some top-level keys of the file and leave the others as they are; a value of None removes its key.

    Other processes that update the file wait until this is done; readers see the old file or the new one. A file that
    is not JSON is renamed to ``settings.json.unreadable`` and kept.

    Raises:
        OSError: the file cannot be read or written.
    """
    if not changes:
        return
    home.root.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        try:
            data = _load(home)
        except FileNotFoundError:
            data = {}
        except ValueError:
            data = {}
            with suppress(OSError):
                home.settings.replace(home.settings.with_name(f"{home.settings.name}.unreadable"))
        data.update(changes)
        data = {key: value for key, value in data.items() if key not in changes or value is not None}
        # Private, because it contains paths and system prompts.
        write_text(home.settings, json.dumps(data, ensure_ascii=False, indent=1), private=True)


def _load(home: Home) -> dict[str, object]:
    """The file's JSON object; raises ValueError if it is not one."""
    data = json.loads(home.settings.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    # A lock on settings.json itself would be lost, as every write replaces that file.
    lock = os.open(home.settings.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _key(location: tuple[int | str, ...], data: Mapping[str, object]) -> tuple[str, ...]:
    """The key to drop for a validation error at ``location``: ``(key,)``, or ``(group, key)`` inside a group."""
    group = data.get(str(location[0]))
    is_grouped = (
        location[0] in ("engine", "cache", "judge", "slurm") and len(location) > 1 and isinstance(group, Mapping)
    )
    return tuple(map(str, location[: 2 if is_grouped else 1]))


def _without(data: Mapping[str, object], keys: set[tuple[str, ...]]) -> dict[str, object]:
    """The data without these keys, each ``(key,)`` or ``(group, key)``."""
    remaining = {key: value for key, value in data.items() if (key,) not in keys}
    for name, group in remaining.items():
        if isinstance(group, Mapping):
            remaining[name] = {key: value for key, value in group.items() if (name, key) not in keys}
    return remaining
