"""The disk cache: entries are complete or absent, whatever happens to the processes that write them."""

import os
import subprocess
import sys

import pytest

from workbench.storage import disk_cache
from workbench.storage.disk_cache import ABOUT, DiskCache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "_MIN_FREE", 0)
    return DiskCache(tmp_path / "cache", 1_000_000)


def put(cache, key, content="x"):
    new = cache.begin(key)
    (new / "content").write_text(content)
    return cache.put(key, new, {"what": content})


def names(cache):
    return sorted(entry.name for entry in cache.folder.iterdir())


def test_an_entry_is_found_by_its_key_and_readable_by_its_owner_only(cache):
    folder = put(cache, "0123")
    assert cache.find("0123") == folder
    assert cache.find("4567") is None
    assert [entry.what for entry in cache.entries()] == ["x"]
    assert names(cache) == ["0123"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_of_two_writers_of_one_key_the_first_one_s_entry_stays(cache):
    first, second = cache.begin("0123"), cache.begin("0123")
    for folder in (first, second):
        (folder / "content").write_text(folder.name)
    entry = cache.put("0123", first, {"what": "first"})
    assert cache.put("0123", second, {"what": "second"}) == entry
    assert (entry / "content").read_text() == first.name
    assert names(cache) == ["0123"]


def test_a_half_deleted_entry_is_replaced(cache):
    folder = put(cache, "0123", "old")
    (folder / ABOUT).unlink()
    assert cache.find("0123") is None
    put(cache, "0123", "new")
    assert (folder / "content").read_text() == "new"
    assert sorted(file.name for file in folder.iterdir()) == [ABOUT, "content"]
    assert names(cache) == ["0123"]


KILLED = """
import os, sys
from pathlib import Path
from workbench.storage.disk_cache import DiskCache

renames_left = int(sys.argv[2])
rename = Path.rename

def rename_and_die(self, target):
    global renames_left
    if not renames_left:
        os._exit(9)
    renames_left -= 1
    return rename(self, target)

Path.rename = rename_and_die
cache = DiskCache(Path(sys.argv[1]), 1_000_000)
new = cache.begin("0123")
(new / "content").write_text("new")
cache.put("0123", new, {"what": "new"})
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_a_process_killed_while_it_puts_an_entry_leaves_nothing_that_counts_as_one(cache, renames):
    (put(cache, "0123", "old") / ABOUT).unlink()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(cache.folder), str(renames)], check=False)
    assert killed.returncode == 9
    assert cache.find("0123") is None
    assert not cache.entries()
    assert cache.make_room("0123", 10) == ""
    assert names(cache) == []
    put(cache, "0123", "newer")
    assert [entry.what for entry in cache.entries()] == ["newer"]


def test_what_a_running_process_writes_stays(cache):
    new = cache.begin("0123")
    assert cache.make_room("0123", 10) == "it is already being written"
    cache.clear()
    assert new.is_dir()


def test_the_entries_used_longest_ago_make_room(cache):
    for number, key in enumerate(("a", "b", "c")):
        os.utime(put(cache, key, key * 150_000) / ABOUT, (number, number))
    assert cache.find("a")  # used again
    assert cache.make_room("d", 300_000) == ""
    assert names(cache) == ["a", "c"]
    assert cache.make_room("d", 2_000_000).endswith("exceeds its limit of 0.0 GB")
    assert names(cache) == ["a", "c"]
