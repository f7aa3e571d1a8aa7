"""Files that are whole or not there."""

import os
import threading

import pytest

from workbench.storage.atomic import atomic_file, write_text


def modes(folder):
    return {entry.name: entry.stat().st_mode & 0o777 for entry in folder.iterdir()}


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path):
    file = tmp_path / "kept.json"
    write_text(file, "old")
    with atomic_file(file) as aside:
        aside.write_text("new, as far as it is writ")
        assert file.read_text() == "old"
        aside.write_text("new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_what_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "kept.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "half a character: \ud83d")

    def break_off():
        with atomic_file(file) as aside:
            aside.write_text("ne")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        break_off()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(NotADirectoryError):
        write_text(file / "inside", "x")
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "file", "x")


def test_what_has_no_bytes_is_written_as_the_writer_wants(tmp_path):
    write_text(tmp_path / "report.md", "half: \ud83d", errors="backslashreplace")
    assert (tmp_path / "report.md").read_text() == "half: \\ud83d"


def test_a_private_file_is_its_owner_s_whatever_the_umask_and_whatever_was_there(tmp_path):
    umask = os.umask(0)
    try:
        write_text(tmp_path / "private", "x", private=True, sync=True)
        write_text(tmp_path / "open", "x")
        assert modes(tmp_path) == {"private": 0o600, "open": 0o666}
        (tmp_path / "private").chmod(0o644)
        write_text(tmp_path / "private", "y", private=True)
        os.umask(0o027)
        write_text(tmp_path / "open", "y")
        assert modes(tmp_path) == {"private": 0o600, "open": 0o640}
    finally:
        os.umask(umask)


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("another's")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "file", "mine")
    assert (tmp_path / "elsewhere").read_text() == "another's"
    assert not (tmp_path / "file").is_symlink()


def test_of_several_writers_one_s_file_is_there_whole(tmp_path):
    file = tmp_path / "kept"
    texts = [str(number) * 50_000 for number in range(8)]

    def write(text):
        for _ in range(5):
            write_text(file, text)
            assert file.read_text() in texts

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() in texts
    assert list(tmp_path.iterdir()) == [file]
