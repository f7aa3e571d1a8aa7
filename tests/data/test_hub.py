"""Hugging Face datasets by configuration, split and slice, downloaded and streamed, from a hub on this machine.

The hub's address is read when its libraries are imported: what is tested runs in a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.dataset_hub import DatasetHub, serve

CARD = """---
configs:
- config_name: small
  data_files:
  - {split: train, path: data/train.jsonl}
  - {split: test, path: data/test.jsonl}
- config_name: other
  data_files: data/other.jsonl
---
"""
READ = """
import json, sys
from workbench.data.sources import load_records
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection
for source, split in json.loads(sys.argv[1]):
    try:
        records = load_records(DataSection(source=source, split=split, eval_fraction=0.0))
        items = list(records.items())
        fed = [[item.where, item.content.texts[1], item.held_out, item.from_eval_split] for item in items]
        print(json.dumps({"format": records.format, "items": fed}))
    except WorkbenchError as error:
        print(json.dumps({"kind": error.kind, "message": error.message, "cure": error.cure}))
"""


# Downloaded, and read from the hub as it comes.
HOW = ("", "?streaming")

SURVEY = """
import json, sys
from pathlib import Path
from workbench.data.dataset_stats import examples, dataset_stats
from workbench.errors import WorkbenchError
from workbench.storage.paths import Home
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit
home = Home(Path(sys.argv[1]).parent / "home")
recipe = edit(Recipe(), {"model.source": sys.argv[1], "data.source": "own/talk:small"})
def count(recipe, fetch):
    try:
        *_, facts = dataset_stats(home, recipe, fetch=fetch, show=0)
        print(json.dumps({"records": facts.records, "held_out": facts.eval_records}))
    except WorkbenchError as error:
        print(json.dumps({"kind": error.kind}))
count(recipe, False)
count(recipe, True)
shorter = edit(recipe, {"data.max_length": 32})
count(shorter, False)
print(json.dumps([example.index for example in examples(home, shorter, 3, 2, "q1")]))
count(edit(recipe, {"data.split": "test"}), False)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> DatasetHub:
    """Sets of all kinds.

    ``own/talk`` has 20 records to train on, 3 to test on, and another configuration; ``own/bare`` is Parquet without a
    card; ``own/secret`` is gated, ``own/script`` a script, ``own/broken`` damaged.
    """
    hub, root = DatasetHub(), tmp_path_factory.mktemp("sets")
    talk, bare, script, broken = folders = [root / name for name in ("talk", "bare", "script", "broken")]
    for folder in folders:
        folder.mkdir()
    (talk / "data").mkdir()
    (talk / "README.md").write_text(CARD)
    for name, count in (("train", 20), ("test", 3), ("other", 4)):
        (talk / "data" / f"{name}.jsonl").write_text(_lines(name, count))
    _write_parquet(bare / "train.parquet", [{"prompt": "P", "completion": f"bare {n}"} for n in range(2)])
    (script / "script.py").write_text("import os\nos.mkdir('was-run')\n")
    (broken / "train.jsonl").write_text(_lines("broken", 2) + '{"question": broken\n')
    hub.sets = {f"own/{folder.name}": folder for folder in folders} | {"own/secret": bare}
    hub.gated.add("own/secret")
    return hub


@pytest.fixture(scope="module")
def address(hub: DatasetHub) -> Iterator[str]:
    with serve(hub) as address:
        yield address


ASKED = [
    *((f"own/talk:small{how}", "train") for how in HOW),
    *((f"own/talk:small{how}", "train[5:8]") for how in HOW),
    *((f"own/talk:small{how}", "test") for how in HOW),
    *((f"own/talk:other{how}", "train") for how in HOW),
    *((f"own/bare{how}", "train") for how in HOW),
    *((f"own/talk:small{how}", "train[:10%]") for how in HOW),
    ("own/talk:small*0.5 + own/bare*2", "train"),
    ("own/talk:nope", "train"),
    ("own/talk", "train"),
    ("own/talk:small", "dev"),
    ("own/nothing", "train"),
    ("own/secret", "train"),
    ("own/script", "train"),
    *((f"own/broken{how}", "train") for how in HOW),
]


@pytest.fixture(scope="module")
def answers(address: str, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What each source and split of ``ASKED`` gives, and the entry of a ``dataset_info.json``."""
    root = tmp_path_factory.mktemp("answers")
    entry = {"hf_hub_url": "own/talk", "subset": "small", "split": "test"}
    (root / "dataset_info.json").write_text(json.dumps({"far": entry}))
    named, *others = read(address, root / "home", (f"{root}/dataset_info.json:far", "train"), *ASKED)
    return {("far", "train"): named, **dict(zip(ASKED, others, strict=True))}


def _write_parquet(path: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


def _lines(name: str, count: int) -> str:
    return "".join(json.dumps({"question": f"Q{n}?", "answer": f"{name} {n}"}) + "\n" for n in range(count))


def read(address: str, home: Path, *asked: tuple[str, str], **environment: str) -> list[dict[str, Any]]:
    """What each source and split gives, from one process."""
    return call(READ, json.dumps(asked), address, home, **environment)


def call(code: str, argument: str, address: str, home: Path, **environment: str) -> list[dict[str, Any]]:
    """The lines of JSON that ``code`` prints, with the hub at ``address``."""
    own = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, argument],
        env={**os.environ, "HF_HUB_OFFLINE": "0", **own, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=400,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def replies(answer: dict[str, Any]) -> list[str]:
    return [reply for _, reply, _, apart in answer["items"] if not apart]


Answers = dict[tuple[str, str], dict[str, Any]]


@pytest.mark.parametrize("how", HOW)
def test_configurations_splits_and_slices(how: str, answers: Answers) -> None:
    # LLaMA-Factory's entry of a set on the hub, with its configuration and split.
    assert replies(answers["far", "train"]) == ["test 0", "test 1", "test 2"]
    whole = answers[f"own/talk:small{how}", "train"]
    assert whole["format"] == "question"
    assert replies(whole) == [f"train {n}" for n in range(20)]
    # Its own test split is what is held out.
    assert [row[1:] for row in whole["items"][20:]] == [[f"test {n}", True, True] for n in range(3)]
    assert whole["items"][0][0] == "own/talk, record 1"
    assert replies(answers[f"own/talk:small{how}", "train[5:8]"]) == ["train 5", "train 6", "train 7"]
    assert replies(answers[f"own/talk:small{how}", "test"]) == ["test 0", "test 1", "test 2"]
    assert replies(answers[f"own/talk:other{how}", "train"]) == [f"other {n}" for n in range(4)]
    bare = answers[f"own/bare{how}", "train"]
    assert (bare["format"], replies(bare)) == ("prompt", ["bare 0", "bare 1"])


def test_a_percentage_is_sliced_once_it_is_downloaded_and_refused_of_a_stream(answers: Answers) -> None:
    assert replies(answers["own/talk:small", "train[:10%]"]) == ["train 0", "train 1"]
    streamed = answers["own/talk:small?streaming", "train[:10%]"]
    assert streamed["kind"] == "data_split"
    assert "train[:2000]" in streamed["cure"]


def test_a_stream_leaves_nothing_on_the_disk_and_a_download_is_had_once(
    hub: DatasetHub, address: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    read(address, home, ("own/talk:small?streaming", "train"))
    assert not list(home.rglob("*.arrow"))
    assert not [path for path in home.rglob("*") if path.is_file() and "train 7" in path.read_text(errors="ignore")]
    read(address, home, ("own/talk:small", "train"))
    assert list(home.rglob("*.arrow"))
    hub.taken.clear()
    (again,) = read(address, home, ("own/talk:small", "train"))
    assert len(replies(again)) == 20
    assert "data/train.jsonl" not in hub.taken


def test_it_is_mixed_with_other_sources(answers: Answers) -> None:
    mixed = answers["own/talk:small*0.5 + own/bare*2", "train"]
    assert replies(mixed) == [f"train {n}" for n in range(1, 20, 2)] + ["bare 0", "bare 0", "bare 1", "bare 1"]


def test_refusals_name_the_set_and_what_to_do(answers: Answers) -> None:
    configuration = answers["own/talk:nope", "train"]
    assert "small" in configuration["message"]
    assert "other" in configuration["message"]
    assert "small" in answers["own/talk", "train"]["message"]
    split = answers["own/talk:small", "dev"]
    assert (split["kind"], split["cure"]) == ("data_split", "It has train, test.")
    assert answers["own/nothing", "train"]["kind"] == "data_missing"
    assert answers["own/secret", "train"]["kind"] in ("data_gated", "data_missing")
    assert answers["own/script", "train"]["kind"] in ("data_source", "data_missing")
    assert not (Path(__file__).parents[2] / "was-run").exists()


@pytest.mark.parametrize("how", HOW)
def test_a_broken_file_of_a_set_says_what_is_wrong_with_it(how: str, answers: Answers) -> None:
    answer = answers[f"own/broken{how}", "train"]
    assert answer["kind"] == "data_source"
    assert "own/broken" in answer["message"]
    assert "JSON" in answer["message"]
    assert answer["cure"]


def test_what_is_not_on_the_disk_cannot_be_had_offline(address: str, tmp_path: Path) -> None:
    (offline,) = read(address, tmp_path / "home", ("own/bare", "train"), HF_HUB_OFFLINE="1")
    assert offline["kind"] == "hub_unreachable"
    assert "HF_HUB_OFFLINE" in offline["cure"]


def test_what_was_fetched_once_is_looked_at_again_without_asking(
    address: str, tiny_llama: Path, tmp_path: Path
) -> None:
    before, fetched, again, found, other_split = call(SURVEY, str(tiny_llama), address, tmp_path / "home")
    assert before == {"kind": "data_elsewhere"}
    assert fetched == again == {"records": 20, "held_out": 3}
    assert found == [10, 11]
    assert other_split == {"kind": "data_elsewhere"}
