"""Recognises Git LFS pointers: small text files that a clone without Git LFS leaves in place of the large ones."""

from pathlib import Path

from workbench.errors import WorkbenchError

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_BEGINNING = b"version https://git-lfs.github.com/spec/"
_MAX_BYTES = 1024


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is a pointer; False if it cannot be read. Files over a kilobyte are not opened."""
    try:
        if file.stat().st_size >= _MAX_BYTES:
            return False
        with file.open("rb") as stream:
            return stream.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return False


def refuse_lfs_pointer(file: Path) -> None:
    """Check that a file is not a pointer.

    Raises:
        WorkbenchError: it is one.
    """
    if is_lfs_pointer(file):
        raise lfs_pointer_error(file)


def lfs_pointer_error(file: Path) -> WorkbenchError:
    """The error, of kind ``lfs_pointer``, that names a pointer and says how to download what it stands for."""
    return WorkbenchError(
        f"{file} is a Git LFS pointer: the file itself was not downloaded.",
        f"Run `git lfs install` and `git lfs pull` in {file.parent}.",
        kind="lfs_pointer",
    )
