"""Files that are whole or not there: written beside their place, and given their name when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Within, the file to write; afterwards it stands at ``path``, or, after an exception, what stood there before.

    Whoever reads ``path`` meanwhile sees the old file or the new one. Of several writers the last one's is kept.

    Raises:
        OSError: the disk refuses.
    """
    # Two threads have one process id.
    aside = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    try:
        yield aside
        aside.replace(path)
    finally:
        # What went wrong before is to be told, not this.
        with suppress(OSError):
            aside.unlink()


def write_text(path: Path, text: str, *, private: bool = False, sync: bool = False, errors: str = "strict") -> None:
    """Write a whole file of text, as :func:`written_aside` does.

    Args:
        private: for its owner's eyes only, whatever the umask.
        sync: on the disk before it has its name, for a machine that may lose its power.
        errors: what becomes of characters that UTF-8 has no bytes for, as of :func:`open`.

    Raises:
        OSError: the disk refuses.
    """
    with written_aside(path) as aside:
        new = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666)
        with os.fdopen(new, "w", encoding="utf-8", errors=errors) as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())


def put_folder(filled: Path, place: Path, before: Path) -> None:
    """Give a filled folder its place.

    What is there is renamed and not removed first: whenever a process is killed, one of the two is there whole.

    Args:
        before: where the old folder waits meanwhile, on the same disk; removed in the end.

    Raises:
        OSError: a rename is refused; the old folder is back in its place.
    """
    if place.exists():
        before.parent.mkdir(parents=True, exist_ok=True)
        place.rename(before)
    try:
        filled.rename(place)
    except OSError:
        if before.exists():
            before.rename(place)
        raise
    shutil.rmtree(before, ignore_errors=True)
