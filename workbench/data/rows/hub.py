"""Rows of a Hugging Face data set, through ``datasets``: downloaded once and memory-mapped, or streamed."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.data.rows.row import Row
from workbench.errors import WorkbenchError

_SLICE = re.compile(r"(?P<name>[^\[\]]+)\[(?P<start>\d*):(?P<stop>\d*)\]")
_HELD_OUT_NAMES = ("validation", "dev", "eval", "test")


@lru_cache(maxsize=4)
def hub_rows(
    name: str, config: str | None, split: str, streaming: bool
) -> tuple[Callable[[], Iterator[Row]], Callable[[], Iterator[Row]] | None, tuple[Path, ...] | None]:
    """How to read a split, the data set's own held-out split if it has one besides, and the files that hold both.

    A stream has no files.

    The last few that were opened stay so: the hub is not asked again for each look at a record.

    Args:
        name: ``owner/name`` on the hub; ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are respected.
        split: with a slice if wanted: ``train[:2000]``, ``train[:10%]``.
        streaming: read over the network as needed, and store nothing.

    Raises:
        WorkbenchError: there is no such data set, configuration or split, or it cannot be reached.
    """
    import datasets

    datasets.utils.logging.disable_progress_bar()
    try:
        splits = datasets.get_dataset_split_names(name, config)
        base = split.partition("[")[0]
        if base not in splits:
            raise WorkbenchError(
                f"The dataset {name} has no split {base!r}.", f"It has {', '.join(splits)}.", kind="data_split"
            )
        held_out = next((other for other in _HELD_OUT_NAMES if other in splits and other != base), None)
        parts = [_load(name, config, part, streaming) for part in (split, held_out) if part]
        rows, *own = (_reader(name, part) for part in parts)
        return rows, own[0] if own else None, None if streaming else _files(parts)
    except (WorkbenchError, KeyboardInterrupt):
        raise
    except Exception as error:  # the library raises what its many file readers and its HTTP client raise
        raise _refusal(name, error) from error


def _load(name: str, config: str | None, split: str, streaming: bool) -> Any:
    import datasets

    if not streaming:
        return datasets.load_dataset(name, config, split=split)
    match = _SLICE.fullmatch(split)
    if match is None and "[" in split:
        raise WorkbenchError(f"The slice {split!r} cannot be streamed.", "Write it as train[:2000].", kind="data_split")
    stream = datasets.load_dataset(name, config, split=match["name"] if match else split, streaming=True)
    if match:
        start = int(match["start"] or 0)
        stream = stream.skip(start)
        if match["stop"]:
            stream = stream.take(max(int(match["stop"]) - start, 0))
    return stream


def _files(parts: list[Any]) -> tuple[Path, ...] | None:
    """Where data sets lie on disk; None where one lies in memory."""
    if not all(part.cache_files for part in parts):
        return None
    return tuple(Path(file["filename"]) for part in parts for file in part.cache_files)


def _reader(name: str, dataset: Any) -> Callable[[], Iterator[Row]]:
    total = getattr(dataset, "num_rows", 0) or 0

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for number, record in enumerate(dataset, start=1):
                yield Row(record, f"{name}, record {number}", number / total if total else 0.0)
        except (WorkbenchError, KeyboardInterrupt):
            raise
        except Exception as error:  # a stream breaks where it is read, with whatever its reader or the network raises
            refusal = _refusal(name, error)
            message = f"{refusal.message} {number:,} records had been read."
            raise WorkbenchError(message, refusal.cure, kind=refusal.kind) from error

    return rows


def _refusal(name: str, error: Exception) -> WorkbenchError:
    """The library's error in our words: it has no common class for what goes wrong."""
    if type(error).__name__ == "DatasetGenerationError" and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what it wraps says what is wrong, itself says nothing
    kind = type(error).__name__
    text = " ".join(str(error).split())
    if "Gated" in kind or "gated" in text:
        return WorkbenchError(
            f"The dataset {name} is gated.",
            f"Accept its terms on huggingface.co/datasets/{name} and set HF_TOKEN.",
            kind="data_gated",
        )
    if kind in ("OfflineModeIsEnabled", "ConnectionError", "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError"):
        return WorkbenchError(
            f"The dataset {name} is not in the cache, and the hub cannot be reached.",
            "Check the connection, HF_ENDPOINT and HF_HUB_OFFLINE, or give a local file.",
            kind="hub_unreachable",
        )
    if kind in ("DatasetNotFoundError", "RepositoryNotFoundError"):
        return WorkbenchError(
            f"There is no dataset {name} on the hub, or it is private.",
            "Check its name; set HF_TOKEN for a private one.",
            kind="data_missing",
        )
    if "scripts are no longer supported" in text:
        return WorkbenchError(
            f"The dataset {name} needs its own loading script, which is not supported.",
            "Use a Parquet or JSON version, or convert it.",
            kind="data_source",
        )
    return WorkbenchError(
        f"The dataset {name} cannot be loaded: {text[:300] or kind}.",
        "Check its name, configuration (owner/name:config) and split.",
        kind="data_source",
    )
