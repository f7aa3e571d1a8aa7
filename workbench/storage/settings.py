"""The user's settings: ``settings.json`` in the home.

The file is the user's: every program reads it anew, and writes only the keys that it changed. Keys that this version
does not know stay in the file.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from workbench.storage.atomic import write_text
from workbench.storage.paths import Home


class _Group(BaseModel):
    """Unknown keys are kept, values are not coerced."""

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


class Settings(_Group):
    """Everything that ``settings.json`` may hold. A key that is missing, or cannot be used, has its default."""

    theme: str | None = Field(default=None, description="Name of the app's theme; null for the dark one.")
    tab: str | None = Field(default=None, description="The tab that opens first; null for Models.")
    recipe: dict[str, Any] | None = Field(
        default=None, description="The app's recipe when it was last closed, as plain data; null for the default one."
    )
    engine: EngineSettings = Field(default=EngineSettings(), description="When an idle engine exits.")
    cache: CacheSettings = Field(default=CacheSettings(), description="Maximum disk space per cache.")

    _problems: tuple[str, ...] = PrivateAttr(())

    @property
    def problems(self) -> tuple[str, ...]:
        """Dotted keys whose values cannot be used; ``settings.json`` where the whole file cannot."""
        return self._problems

    @classmethod
    def of(cls, data: Mapping[str, Any], problems: tuple[str, ...] = ()) -> Self:
        """Settings from plain data."""
        try:
            settings = cls.model_validate(data)
        except ValidationError as error:
            bad = {_key(detail["loc"], data) for detail in error.errors(include_url=False)}
            return cls.of(_without(data, bad), (*problems, *sorted(".".join(key) for key in bad)))
        settings._problems = problems
        return settings


def read(home: Home) -> Settings:
    """The settings as the file has them now; the defaults where there is no file."""
    try:
        return Settings.of(_load(home))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError):
        return Settings.of({}, (home.settings.name,))


def update(home: Home, changes: Mapping[str, Any]) -> None:
    """Change some top-level keys of the file as it is now; a value of None removes the key.

    Other processes that update it wait meanwhile, and readers see the old file or the new one. A file that is not JSON
    is kept beside it, as ``settings.json.unreadable``.

    Raises:
        OSError: the disk refuses.
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
        # Paths and system prompts are in it.
        write_text(home.settings, json.dumps(data, ensure_ascii=False, indent=1), private=True)


def _load(home: Home) -> dict[str, Any]:
    """The file's plain data; ValueError where it is no JSON object."""
    data = json.loads(home.settings.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    # Not the file itself, which every write replaces.
    lock = os.open(home.settings.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _key(place: tuple[int | str, ...], data: Mapping[str, Any]) -> tuple[str, ...]:
    """The key in the file at which a problem lies: one of a group, or a top-level one."""
    group = data.get(str(place[0]))
    is_grouped = place[0] in ("engine", "cache") and len(place) > 1 and isinstance(group, Mapping)
    return tuple(map(str, place[: 2 if is_grouped else 1]))


def _without(data: Mapping[str, Any], keys: set[tuple[str, ...]]) -> dict[str, Any]:
    left = {key: value for key, value in data.items() if (key,) not in keys}
    for group, name in (key for key in keys if len(key) == 2):
        left[group] = {key: value for key, value in left[group].items() if key != name}
    return left
