"""Settings: documented, read anew, and changed key by key, so that an edit by hand or by another terminal survives."""

import json
import threading

import pytest

from workbench.storage.paths import Home
from workbench.storage.settings import CacheSettings, EngineSettings, JudgeSettings, Settings, read, update


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def write(home: Home, text: str) -> None:
    home.root.mkdir(parents=True, exist_ok=True)
    home.settings.write_text(text)


def test_every_setting_is_documented():
    for group in (Settings, EngineSettings, CacheSettings, JudgeSettings):
        assert all(field.description for field in group.model_fields.values())


def test_a_home_without_a_file_has_the_defaults(home):
    assert read(home) == Settings()
    assert read(home).problems == ()


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ("settings.json",)),
        ("[1]", ("settings.json",)),
        ("\x00", ("settings.json",)),
        ('{"recipe": []}', ("recipe",)),
        ('{"theme": 3, "tab": "train"}', ("theme",)),
        ('{"engine": 3}', ("engine",)),
        ('{"engine": {"unload_after_minutes": true}}', ("engine.unload_after_minutes",)),
        ('{"engine": {"stop_after_minutes": NaN}, "cache": {"tokens_gb": 1e9}}',
         ("cache.tokens_gb", "engine.stop_after_minutes")),
    ],
)  # fmt: skip
def test_what_cannot_be_used_has_its_default_and_is_named(home, text, problems):
    write(home, text)
    settings = read(home)
    assert settings.problems == problems
    assert settings.model_dump(exclude={"tab"}) == Settings().model_dump(exclude={"tab"})
    assert settings.tab == ("train" if "train" in text else None)


def test_what_can_be_used_beside_it_is(home):
    write(home, '{"cache": {"tokens_gb": "much", "quantised_gb": 1}, "tab": "data", "future": {"x": 1}}')
    settings = read(home)
    assert settings.cache == CacheSettings(quantised_gb=1)
    assert settings.tab == "data"
    assert settings.problems == ("cache.tokens_gb",)


def test_an_update_changes_its_own_keys_and_leaves_all_others(home):
    write(home, '{"cache": {"tokens_gb": "much"}, "future": {"x": 1}, "theme": "a", "tab": "data"}')
    update(home, {"tab": "train", "theme": None})
    assert json.loads(home.settings.read_text()) == {
        "cache": {"tokens_gb": "much"},
        "future": {"x": 1},
        "tab": "train",
    }
    assert home.settings.stat().st_mode & 0o777 == 0o600


def test_without_a_change_nothing_is_written(home):
    update(home, {})
    assert not home.root.exists()


def test_a_file_that_is_no_json_is_kept_beside_the_new_one(home):
    write(home, '{"tab": "data",')
    update(home, {"tab": "train"})
    assert read(home).tab == "train"
    assert (home.root / "settings.json.unreadable").read_text() == '{"tab": "data",'


def test_updates_at_the_same_time_are_all_kept(home):
    threads = [threading.Thread(target=update, args=(home, {f"key{n}": n})) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(home.settings.read_text()) == {f"key{n}": n for n in range(20)}
