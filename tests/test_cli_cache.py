"""``loraworkbench cache``: what is kept, its size and place, and its removal."""

import json
import os
import time

import pytest
from typer.testing import CliRunner

from tests.json_outputs import assert_documented
from workbench.commands.app import app
from workbench.models.local import ORIGIN_FILE
from workbench.storage.disk_cache import DiskCache
from workbench.storage.paths import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def filled(home):
    """One of each kind, and a run."""
    for kind, what in (("quantised", "owner/name as nf4"), ("tokens", "[red]notes[/red]\x1b[2J.jsonl")):
        cache = DiskCache.of(home, kind)
        partial = cache.begin("0123")
        (partial / "content").write_bytes(b"x" * 2_000_000)
        cache.put("0123", partial, {"what": what})
    (home.cache / "traces").mkdir()
    (home.cache / "traces" / "a.json").write_text("{}")
    old, young = home.cache / "data" / "tokens-old", home.cache / "data" / "tokens-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "tokens.arrow").write_bytes(b"y" * 1000)
    os.utime(old, (time.time() - 90_000,) * 2)
    model = home.models / "tiny-0123"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (model / ORIGIN_FILE).write_text(json.dumps({"source": "/tmp/tiny.gguf", "sha256": "0123"}))
    (home.runs / "one").mkdir(parents=True)
    (home.runs / "one" / "journal.jsonl").write_text("")
    return home


def call(home, *arguments, code=0):
    done = CliRunner().invoke(app, ["--home", str(home.root), "cache", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    if "--json" in arguments:
        assert_documented(["cache", *arguments], done.stdout)
    return done.stdout


def listed(home):
    return [json.loads(line) for line in call(home, "--json").splitlines()]


def test_nothing_is_kept_at_first(home):
    assert call(home) == "The cache is empty.\n"
    assert call(home, "clear", "tokens") == "tokens: nothing to remove.\n"
    assert not home.root.exists()


def test_everything_is_listed_with_size_and_place(filled):
    found = {one["kind"]: one for one in listed(filled)}
    assert list(found) == ["quantised", "tokens", "traces", "leftovers", "models"]
    assert found["quantised"]["what"] == "owner/name as nf4"
    assert found["quantised"]["place"] == str(filled.cache / "quantised" / "0123")
    assert 2_000_000 < found["quantised"]["bytes"] < 2_001_000
    assert time.time() - found["quantised"]["used"] < 60
    shown = call(filled)
    assert "2.00 MB" in shown
    assert "[red]notes[/red]" in shown
    assert "\x1b" not in shown
    assert "4.00 MB in total" in shown


def test_clear_removes_all_but_models_and_runs(filled):
    said = call(filled, "clear")
    assert "quantised: 2.00 MB removed." in said
    assert [one["kind"] for one in listed(filled)] == ["models"]
    assert (filled.runs / "one" / "journal.jsonl").exists()
    assert (filled.cache / "data" / "tokens-young" / "tokens.arrow").exists()


@pytest.mark.parametrize("kind", ["quantised", "tokens", "traces", "leftovers", "models"])
def test_a_kind_by_name(filled, kind):
    before = {one["kind"] for one in listed(filled)}
    (said,) = [json.loads(line) for line in call(filled, "clear", kind, "--json").splitlines()]
    assert said["kind"] == kind
    assert said["bytes"] > 0
    assert {one["kind"] for one in listed(filled)} == before - {kind}


def test_what_is_being_written_stays(filled):
    partial = DiskCache.of(filled, "tokens").begin("4567")
    call(filled, "clear")
    assert partial.is_dir()


def test_an_unknown_kind_removes_nothing(filled):
    with pytest.raises(Exception, match="Unknown kind of cached files: 'runs'"):
        call(filled, "clear", "tokens", "runs")
    assert len(listed(filled)) == 5
