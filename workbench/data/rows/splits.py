"""The split of a local source: its slice, and the splits that the names of files in a folder tell."""

import re
from collections.abc import Sequence
from pathlib import Path

from workbench.errors import WorkbenchError

_SLICE = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?")
# Words in the names of files and folders, as ``datasets`` reads them: https://huggingface.co/docs/datasets/repository_structure
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORD = re.compile("|".join(f"(?P<{name}>{'|'.join(words)})" for name, words in _WORDS.items()))
EVAL_SPLITS = ("validation", "test")
"""The splits that a run can be evaluated on, the likeliest first."""


def slice_of(split: str) -> tuple[int | None, int | None]:
    """Parse the slice of ``train[10:20]`` into ``(10, 20)``.

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


def split_name(split: str) -> str:
    """The split that ``data.split`` names, without its slice."""
    base = split.partition("[")[0].strip()
    return next((name for name, words in _WORDS.items() if base.lower() in words), base)


def splits_of(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of a folder by their split; all of them are ``train`` if no name tells a split, or each the same.

    A file without such a word in its name or folder belongs to ``train``.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file.relative_to(folder)) or "train", []).append(file)
    return found if len(found) > 1 else {"train": list(files)}


def _split_of(path: Path) -> str:
    """The split that a path names, the innermost word first; empty if it names none."""
    for part in reversed(path.parts):
        words = [match for word in re.split(r"[^a-z]+", part.lower()) if (match := _WORD.fullmatch(word))]
        if words:
            return words[-1].lastgroup or ""
    return ""
