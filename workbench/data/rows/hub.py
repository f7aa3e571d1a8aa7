"""Reads rows from a Hugging Face dataset with ``datasets``: downloaded and memory-mapped, or streamed."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.rows.class_names import names_of_features
from workbench.data.rows.row import ReadRows, Row, RowSource
from workbench.errors import WorkbenchError

_SLICE = re.compile(r"(?P<name>[^\[\]]+)\[(?P<start>\d*):(?P<stop>\d*)\]")
_EVAL_SPLITS = ("validation", "dev", "eval", "test")

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@lru_cache(maxsize=4)
def hub_rows(name: str, config: str | None, split: str, streaming: bool) -> RowSource:
    """Open a split of a hub dataset, and its eval split if it has one.

    The last few opened datasets are cached, so that looking at more records does not ask the hub again.

    Args:
        name: ``owner/name`` on the hub; ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are respected.
        split: optionally with a slice: ``train[:2000]``, ``train[:10%]``.
        streaming: read over the network as needed, and store nothing.

    Raises:
        WorkbenchError: there is no such dataset, configuration or split, or the hub cannot be reached.
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
        eval_split = next((other for other in _EVAL_SPLITS if other in splits and other != base), None)
        parts = [_load(name, config, part, streaming) for part in (split, eval_split) if part]
        rows, *eval_rows = (_reader(name, part) for part in parts)
        names = names_of_features(parts[0].features or {})
        files = None if streaming else _files(parts)
        return RowSource(rows, eval_rows[0] if eval_rows else None, files=files, class_names=names)
    except (WorkbenchError, KeyboardInterrupt):
        raise
    except Exception as error:  # anything that the library's file readers or its HTTP client raise
        raise _explained(name, error) from error


def _load(name: str, config: str | None, split: str, streaming: bool) -> "Dataset | IterableDataset":
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


def _files(parts: "list[Dataset]") -> tuple[Path, ...] | None:
    """The files of memory-mapped datasets; None if one of them is in memory."""
    if not all(part.cache_files for part in parts):
        return None
    return tuple(Path(file["filename"]) for part in parts for file in part.cache_files)


def _reader(name: str, dataset: "Dataset | IterableDataset") -> ReadRows:
    total = getattr(dataset, "num_rows", 0) or 0

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for number, record in enumerate(dataset, start=1):
                yield Row(record, f"{name}, record {number}", number / total if total else 0.0)
        except (WorkbenchError, KeyboardInterrupt):
            raise
        except Exception as error:  # a stream fails while it is read, with anything its reader or the network raises
            explained = _explained(name, error)
            message = f"{explained.message} {number:,} records had been read."
            raise WorkbenchError(message, explained.cure, kind=explained.kind) from error

    return rows


def _explained(name: str, error: Exception) -> WorkbenchError:
    """Translate an error of ``datasets``, which has no common base class for its errors."""
    if type(error).__name__ == "DatasetGenerationError" and isinstance(error.__cause__, Exception):
        error = error.__cause__  # only the wrapped error says what is wrong

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
