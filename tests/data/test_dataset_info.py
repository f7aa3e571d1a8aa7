"""LLaMA-Factory's ``dataset_info.json`` as a source."""

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.data.open_source import needs_hub, remote_sources, source_path
from workbench.data.records.conversation import Conversation
from workbench.data.sources import load_records
from workbench.engine.client.requests import anchored
from workbench.errors import WorkbenchError
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import edit

ALPACA = [{"instruction": f"i{n}", "input": "x", "output": f"o{n}"} for n in range(4)]
RENAMED = [{"ask": "q", "more": "x", "say": "a", "who": "be kind", "past": [["p", "r"]]}]
TAGGED = [{"talk": [
    {"speaker": "S", "words": "be kind"}, {"speaker": "U", "words": "q"}, {"speaker": "A", "words": "a"},
]}]  # fmt: skip
CALLS = [{
    "conversations": [
        {"from": "human", "value": "add"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "three"},
    ],
    "tools": '[{"name": "add", "description": "adds", "parameters": {}}]',
}]  # fmt: skip
FILES = {
    "alpaca": (ALPACA, {}),
    "renamed": (
        RENAMED,
        {"columns": {"prompt": "ask", "query": "more", "response": "say", "system": "who", "history": "past"}},
    ),
    "tagged": (
        TAGGED,
        {
            "formatting": "sharegpt",
            "columns": {"messages": "talk"},
            "tags": {
                "role_tag": "speaker", "content_tag": "words", "user_tag": "U", "assistant_tag": "A", "system_tag": "S",
            },
        },
    ),
    "calls": (CALLS, {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}}),
    "few": (ALPACA, {"num_samples": 2}),
    "pairs": ([{"instruction": "q", "chosen": "a", "rejected": "b"}], {"ranking": True}),
    "pretrained": ([{"body": "the sea is blue"}], {"columns": {"prompt": "body"}}),
    "wrong": (ALPACA, {"columns": {"prompt": "question", "response": "output"}}),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ``data`` folder as LLaMA-Factory has it, with an entry and a file for each of :data:`FILES`."""
    for name, (records, _) in FILES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    entries = {name: {"file_name": f"{name}.json", **rest} for name, (_, rest) in FILES.items()}
    entries["modelscope"] = {"ms_hub_url": "owner/set"}
    entries["parts"] = {"file_name": "alpaca.json", "folder": "en"}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path


def conversations(source: str, **settings: Any) -> list[Conversation | str | None]:
    return [item.content for item in load_records(DataSection(source=source, eval_fraction=0.0, **settings)).items()]


def turns(content: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in content.messages]


def test_columns_tags_and_tools_are_those_of_the_entry(folder: Path) -> None:
    at = f"{folder}/dataset_info.json:"
    assert [turns(found)[-1] for found in conversations(at + "alpaca")] == [("assistant", f"o{n}") for n in range(4)]
    (renamed,) = conversations(at + "renamed")
    assert turns(renamed) == [
        ("system", "be kind"), ("user", "p"), ("assistant", "r"), ("user", "q\n\nx"), ("assistant", "a"),
    ]  # fmt: skip
    (tagged,) = conversations(at + "tagged")
    assert turns(tagged) == [("system", "be kind"), ("user", "q"), ("assistant", "a")]
    (calls,) = conversations(at + "calls")
    assert isinstance(calls, Conversation)
    assert calls.tools[0]["function"]["name"] == "add"
    assert calls.messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert calls.messages[2]["role"] == "tool"
    assert len(conversations(at + "few")) == 2
    assert conversations(at + "pretrained") == ["the sea is blue"]
    # What the recipe sets comes first.
    assert turns(conversations(at + "wrong", columns={"prompt": "instruction", "reply": "output"})[0])[0][1] == "i0"
    assert turns(conversations(at + "pairs", columns={"prompt": "instruction", "reply": "chosen"})[0])[1][1] == "a"
    assert len(conversations(at + "alpaca", split="train[1:3]")) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "names 10 datasets: alpaca, renamed"),
        (":nothing", "has no dataset 'nothing': alpaca"),
        (":pairs", "holds preference data"),
        (":wrong", "names the column 'question', which its records do not have"),
        (":modelscope", "at ms_hub_url 'owner/set', which is not supported"),
        (":parts", "sets folder, which is not supported"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, name: str, words: str) -> None:
    with pytest.raises(WorkbenchError, match=words) as refused:
        load_records(DataSection(source=f"{folder}/dataset_info.json{name}"))
    assert refused.value.cure
    if not name:
        # A folder that holds the file stands for it.
        with pytest.raises(WorkbenchError, match=words):
            load_records(DataSection(source=str(folder)))


def test_a_folder_with_one_entry_is_that_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "dataset_info.json").write_text('{"only": {"file_name": "few.json"}}', encoding="utf-8")
    assert len(conversations(str(folder))) == 4
    monkeypatch.chdir(folder.parent)
    recipe = edit(Recipe(), {"data.source": f"{folder.name}/dataset_info.json:only"})
    assert anchored(recipe).data.source == f"{folder}/dataset_info.json:only"
    assert source_path(f"{folder}/dataset_info.json:only") == folder / "few.json"
    assert remote_sources(recipe.data.source) == []


def test_the_file_that_datasets_writes_is_no_list_of_data_sets(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()
    (folder / "dataset_info.json").write_text('{"builder_name": "json", "features": {}}', encoding="utf-8")
    (folder / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    assert len(conversations(str(folder))) == 1
    with pytest.raises(WorkbenchError, match="has no dataset 'x'"):
        load_records(DataSection(source=f"{folder}/dataset_info.json:x"))


def test_tokens_are_not_kept_beyond_a_change_of_the_entry(folder: Path) -> None:
    (reading,) = (
        source.reading for source in load_records(DataSection(source=f"{folder}/dataset_info.json:few")).sources
    )
    assert reading.files == (folder / "few.json", folder / "dataset_info.json")


def test_an_entry_on_the_hub(folder: Path) -> None:
    entry = {"hf_hub_url": "owner/set", "subset": "en", "split": "validation"}
    (folder / "dataset_info.json").write_text(json.dumps({"far": entry}), encoding="utf-8")
    source = f"{folder}/dataset_info.json:far"
    assert remote_sources(source) == [source]
    assert needs_hub(source)
    assert source_path(source) is None
