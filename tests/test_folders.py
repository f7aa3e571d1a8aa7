"""Folders that another process empties while they are listed."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from workbench.models.pip import largest_wheel
from workbench.storage.folders import entries, files_below, files_in, size_of


def filled(folder):
    for number in range(3):
        place = folder / f"pip-unpack-{number}"
        place.mkdir(parents=True)
        (place / "one.whl").write_bytes(b"12345")
        (place / "two.txt").write_bytes(b"123")
    return folder


@pytest.fixture
def vanishing(tmp_path, monkeypatch):
    """A folder whose entries vanish after it was listed and before they are looked at."""
    folder = filled(tmp_path / "scratch")
    scan, list_names = os.scandir, os.listdir

    def scan_too_late(path="."):
        if not isinstance(path, int) and Path(path).parent == folder:
            shutil.rmtree(path)
        return scan(path)

    def list_just_in_time(path="."):
        names = list_names(path)
        if path == folder:
            for name in names:
                shutil.rmtree(folder / name)
        return names

    monkeypatch.setattr(os, "scandir", scan_too_late)
    monkeypatch.setattr(os, "listdir", list_just_in_time)
    return folder


def test_what_vanishes_while_it_is_listed_is_left_out(vanishing):
    assert list(files_below(vanishing)) == []


def test_the_size_of_what_vanishes_is_nothing(vanishing):
    assert size_of(vanishing) == 0


def test_entries_that_vanish_are_no_files(vanishing):
    assert files_in(vanishing) == []


def test_the_progress_of_a_download_survives_what_pip_removes(vanishing):
    assert largest_wheel(vanishing) == 0


def test_what_stays_is_found(tmp_path):
    folder = filled(tmp_path / "scratch")
    (folder / "three.whl").write_bytes(b"1234567")
    (folder / "link").symlink_to(folder / "nowhere")
    assert sorted((file.name, found.st_size) for file, found in files_below(folder)) == [
        *(("one.whl", 5),) * 3,
        ("three.whl", 7),
        *(("two.txt", 3),) * 3,
    ]
    assert [file.name for file, _ in files_in(folder)] == ["three.whl"]
    assert size_of(folder) == 31 + (folder / "link").lstat().st_size
    assert size_of(folder / "three.whl") == 7
    assert largest_wheel(folder) == 7
    assert entries(tmp_path / "none") == []
    assert entries(folder / "three.whl") == []


def test_listing_survives_a_process_that_makes_and_removes_all_the_time(tmp_path):
    folder, is_over = tmp_path / "busy", threading.Event()

    def churn():
        while not is_over.is_set():
            filled(folder)
            shutil.rmtree(folder)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(500):
            list(files_below(folder))
            files_in(folder)
            size_of(folder)
    finally:
        is_over.set()
        thread.join()
