"""Atomic writes: a file or folder is written under a temporary name and then renamed into place."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; when the block ends, what was written there replaces ``path``.

    A reader sees the old file or the new one, never a partial one. After an exception the old file stays. With several
    writers, the last one wins.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    # Threads of one process share its id, hence the random part.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        # An error here must not hide the one that the block raised.
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str, *, private: bool = False, sync: bool = False, errors: str = "strict") -> None:
    """Write a whole text file atomically, see :func:`atomic_file`.

    Args:
        private: make it readable by its owner only (mode 0600), whatever the umask.
        sync: flush it to the disk before the rename, so that a power cut cannot leave an empty file.
        errors: how to treat characters that UTF-8 cannot encode, as in :func:`open`.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    with atomic_file(path) as temporary:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666
        )
        with os.fdopen(descriptor, "w", encoding="utf-8", errors=errors) as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())


def put_folder(new: Path, target: Path, backup: Path) -> None:
    """Rename the complete folder ``new`` to ``target``, replacing a folder that is already there.

    The old folder is renamed to ``backup`` first and deleted last: if the process is killed at any moment, the old or
    the new folder still exists in full.

    Args:
        backup: a free name on the same disk; its parent is created if needed.

    Raises:
        OSError: a rename failed; the old folder is back at ``target``.
    """
    if target.exists():
        backup.parent.mkdir(parents=True, exist_ok=True)
        target.rename(backup)
    try:
        new.rename(target)
    except OSError:
        if backup.exists():
            backup.rename(target)
        raise
    shutil.rmtree(backup, ignore_errors=True)
