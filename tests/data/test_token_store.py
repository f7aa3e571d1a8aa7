"""Records are tokenised once: what is read back is what was tokenised, and only where it would be the same again."""

import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import CHAT_TEMPLATE, make_word_tokenizer
from workbench.data.dataset_stats import dataset_stats
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens import encode
from workbench.data.tokens import file as token_file
from workbench.data.tokens import store as token_store
from workbench.data.tokens.encode import EncodedData, encode_dataset
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import edit
from workbench.storage import disk_cache
from workbench.storage.disk_cache import DiskCache
from workbench.storage.paths import Home

TEXTS = ("add two and three", "five", "the sea is blue", "why", "because the sea is blue and two is three")


@pytest.fixture(autouse=True)
def _few_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "_LEAST_BYTES", 0)
    monkeypatch.setattr(disk_cache, "_MIN_FREE", 0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def data(tmp_path: Path) -> DataSection:
    """300 records of several lengths, some twice, some too long, one without a reply."""
    file = tmp_path / "records.jsonl"
    rows = [{"instruction": TEXTS[n % 4], "response": " ".join(TEXTS[: n % 5 + 1])} for n in range(300)]
    rows[7] = {"instruction": "why", "response": ""}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSection(source=str(file), max_length=16)


def encoded(home: Home, data: DataSection, tokenizer: Any) -> EncodedData:
    return encode_dataset(load_records(data, home), Template.for_model(tokenizer, data.template), data)


def cache(home: Home) -> DiskCache:
    return DiskCache.of(home, "tokens")


def assert_same(one: EncodedData, other: EncodedData) -> None:
    assert one.train.data.table.combine_chunks().equals(other.train.data.table.combine_chunks())
    assert one.eval.data.table.combine_chunks().equals(other.eval.data.table.combine_chunks())
    assert one.facts == other.facts
    assert one.template == other.template
    assert one.template.notices == other.template.notices


@pytest.mark.parametrize("in_memory", [0, 64_000_000])
@pytest.mark.parametrize("completion_only", [True, False])
def test_what_is_read_is_what_was_tokenised(
    home: Home, data: DataSection, words: Any, in_memory: int, completion_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_file, "_MAX_IN_MEMORY", in_memory)
    data = data.model_copy(update={"completion_only": completion_only})
    fresh = encoded(home, data, words)
    nowhere = encode_dataset(load_records(data), Template.for_model(words), data)
    monkeypatch.setattr(encode, "encode_samples", lambda *_, **__: pytest.fail("it is tokenized again"))
    again = encoded(home, data, words)
    assert (fresh.from_cache, nowhere.from_cache, again.from_cache) == (False, False, True)
    assert_same(fresh, again)
    assert_same(nowhere, again)
    assert fresh.facts.skipped == 1
    assert fresh.facts.cut
    assert bool(again.train.cache_files) is not bool(in_memory)


def test_only_the_owner_may_read_them(home: Home, data: DataSection, words: Any) -> None:
    encoded(home, data, words)
    (kept,) = cache(home).entries()
    assert [path.stat().st_mode & 0o777 for path in (kept.folder.parent, kept.folder)] == [0o700] * 2
    assert {file.stat().st_mode & 0o777 for file in kept.folder.iterdir()} == {0o600}
    assert not list((home.cache / "data").iterdir())


def _touched(data: DataSection) -> DataSection:
    """Another content of the same length and age."""
    file = Path(data.source)
    before = file.stat()
    file.write_text(file.read_text().replace("blue", "five"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    return data


def _held_out(data: DataSection) -> DataSection:
    Path(data.source).with_name("records.eval.jsonl").write_text('{"instruction": "why", "response": "five"}\n')
    return data


CHANGES = {
    "content": _touched,
    "a held-out part beside it": _held_out,
    "max_length": lambda data: data.model_copy(update={"max_length": 12}),
    "system": lambda data: data.model_copy(update={"system": "be kind"}),
    "split": lambda data: data.model_copy(update={"split": "train[:200]"}),
    "eval_fraction": lambda data: data.model_copy(update={"eval_fraction": 0.2}),
    "eval_records": lambda data: data.model_copy(update={"eval_records": 3}),
    "columns": lambda data: data.model_copy(update={"columns": {"prompt": "response", "reply": "instruction"}}),
    "completion_only": lambda data: data.model_copy(update={"completion_only": False}),
    "template": lambda data: data.model_copy(update={"template": "plain"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_be_other_tokens_is_tokenised_anew(home: Home, data: DataSection, words: Any, change: str) -> None:
    encoded(home, data, words)
    changed = CHANGES[change](data)
    again = encoded(home, changed, words)
    assert not again.from_cache
    assert_same(again, encode_dataset(load_records(changed), Template.for_model(words, changed.template), changed))


def test_another_tokenizer_or_template_is_another_key(home: Home, data: DataSection) -> None:
    # Other tests have used the one that they share, and that is seen on it.
    encoded(home, data, make_word_tokenizer())
    assert not encoded(home, data, make_word_tokenizer(begin=True)).from_cache
    assert not encoded(home, data, make_word_tokenizer(CHAT_TEMPLATE.replace("[Q]", "[S]"))).from_cache
    larger = make_word_tokenizer()
    larger.add_tokens(["blue and"])
    assert not encoded(home, data, larger).from_cache
    assert encoded(home, data, make_word_tokenizer()).from_cache


def test_packing_is_not_part_of_it(home: Home, data: DataSection, words: Any) -> None:
    encoded(home, data, words)
    assert encoded(home, data.model_copy(update={"packing": True}), words).from_cache


def test_a_template_that_writes_the_day_holds_for_a_day(
    home: Home, data: DataSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = make_word_tokenizer("{{ strftime_now('%d') and '' }}" + CHAT_TEMPLATE)
    encoded(home, data, words)
    assert encoded(home, data, words).from_cache

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date(2100, 1, 1)

    monkeypatch.setattr(token_store, "date", Tomorrow)
    assert not encoded(home, data, words).from_cache


def test_records_that_change_while_they_are_read_are_not_kept(
    home: Home, data: DataSection, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = encode.encode_samples

    def slowly(*args: Any, **options: Any) -> Any:
        yield from given(*args, **options)
        with Path(data.source).open("a") as file:
            file.write('{"instruction": "why", "response": "five"}\n')

    monkeypatch.setattr(encode, "encode_samples", slowly)
    encoded(home, data, words)
    assert not cache(home).entries()


def test_a_tokenizer_that_does_something_of_its_own_is_not_relied_on(home: Home, data: DataSection) -> None:
    from transformers import PreTrainedTokenizerFast

    class Own(PreTrainedTokenizerFast):
        def _encode_plus(self, *args: Any, **options: Any) -> Any:
            return super()._encode_plus(*args, **options)

    words = make_word_tokenizer()
    own = Own(tokenizer_object=words.backend_tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    own.chat_template = CHAT_TEMPLATE
    encoded(home, data, own)
    assert not cache(home).entries()


@pytest.mark.parametrize("name", ["train.arrow", "held-out.arrow", "facts.json"])
@pytest.mark.parametrize("damage", ["short", "flipped", "gone"])
def test_damaged_ones_are_tokenised_anew(home: Home, data: DataSection, words: Any, name: str, damage: str) -> None:
    fresh = encoded(home, data, words)
    file = cache(home).entries()[0].folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-9])
    again = encoded(home, data, words)
    assert not again.from_cache
    assert_same(fresh, again)
    assert encoded(home, data, words).from_cache


def test_files_are_hashed_again_only_after_they_were_touched(
    home: Home, data: DataSection, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded(home, data, words)
    read: list[str] = []
    given = token_store._digest
    monkeypatch.setattr(token_store, "_digest", lambda file: read.append(file.name) or given(file))
    first = encoded(home, data, words)
    assert first.from_cache
    # Their names in the run's folder went since they were kept, which the system notes as a change.
    read.clear()
    for _ in range(3):
        again = encoded(home, data, words)
        assert again.from_cache
        assert_same(first, again)
    assert read == []
    file = cache(home).entries()[0].folder / "train.arrow"
    os.utime(file)
    assert encoded(home, data, words).from_cache
    assert read == ["train.arrow", "held-out.arrow"]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not encoded(home, data, words).from_cache


def test_what_is_refused_is_refused_each_time(home: Home, data: DataSection, words: Any) -> None:
    data = data.model_copy(update={"split": "train[7:8]"})
    for _ in range(2):
        with pytest.raises(WorkbenchError, match="no usable record"):
            encoded(home, data, words)
    assert not cache(home).folder.exists() or not list(cache(home).folder.iterdir())


def test_a_set_of_the_hub_is_known_by_its_files(home: Home, tmp_path: Path, words: Any) -> None:
    from workbench.data.open_source import Source
    from workbench.data.records.detect import detect
    from workbench.data.rows.hub import hub_rows
    from workbench.data.sources import Records

    (tmp_path / "set").mkdir()
    record = {"instruction": "why", "response": "because"}
    (tmp_path / "set" / "train.jsonl").write_text((json.dumps(record) + "\n") * 40)
    data = DataSection(source="owner/set")

    def once(streaming: bool) -> EncodedData:
        reading = hub_rows(str(tmp_path / "set"), None, "train", streaming)
        source = Source("owner/set", reading, detect(list(record), [record]))
        return encode_dataset(Records((source,), 0.1, True, home), Template.for_model(words), data)

    assert [once(False).from_cache, once(False).from_cache] == [False, True]
    assert [once(True).from_cache, once(True).from_cache] == [False, False]


def test_the_facts_of_a_survey_are_those_that_a_run_kept(
    home: Home, data: DataSection, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.data import dataset_stats as module

    monkeypatch.setattr(module, "SAMPLED", 8)
    recipe = edit(recipe, {"training.per_device_train_batch_size": 3, "data.system": "Be kind."})
    recipe = edit(recipe, {"data.source": data.source, "data.max_length": 100})
    *_, counted = dataset_stats(home, recipe)
    records, template = module.open_data(home, recipe)
    assert not encode_dataset(records, template, recipe.data).from_cache
    counts = []
    given = module.data_facts
    monkeypatch.setattr(module, "data_facts", lambda *a, **o: counts.append(o["limit"]) or given(*a, **o))
    *_, kept = dataset_stats(home, recipe)
    assert counts == [8]
    assert kept == counted
    assert kept.exact
    assert replace(kept, padding_waste=0.0) != kept
