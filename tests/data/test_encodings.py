"""Files that are not UTF-8, and JSON inside JSON: what they hold is read, and how is counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.data.prepare.documents import open_documents
from workbench.data.rows.encoding import UTF_8, encoding_of
from workbench.data.sources import Item, load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection
from workbench.storage.paths import Home

TEXTS = {
    "cp1252": ("Où est le café “Chez nous” près de la forêt ?", "Là-bas, à côté de l’église, pour 5 €."),
    "cp1251": ("Где находится библиотека?", "Она находится в Египте, у самого моря."),
    "cp932": ("こんにちは、元気ですか？", "はい、元気です。ありがとうございます。"),
    "gb18030": ("你好，图书馆在哪里？", "它在埃及，靠近大海。"),
}
UNICODE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
PLAIN = ("Où est le café ? ☃", "Là-bas 🙂")


def _file(kind: str, texts: tuple[str, str]) -> str:
    prompt, completion = texts
    match kind:
        case "jsonl":
            return json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n"
        case "json":
            return json.dumps([{"prompt": prompt, "completion": completion}], ensure_ascii=False, indent=1)
        case "csv":
            return f'prompt,completion\r\n"{prompt}","{completion}"\r\n'
    return f"prompt\tcompletion\n{prompt}\t{completion}\n"


def _items(path: Path, **options: Any) -> list[Item]:
    return list(load_records(DataSection(source=str(path), eval_fraction=0.0, **options)).items())


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
@pytest.mark.parametrize("encoding", [*TEXTS, *UNICODE])
def test_a_file_in_another_encoding_is_read_and_said_to_be(encoding: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"set.{kind}"
    texts = TEXTS.get(encoding, PLAIN)
    path.write_bytes(_file(kind, texts).encode(encoding))
    (item,) = _items(path)
    assert item.content is not None
    assert item.content.texts == list(texts)  # type: ignore[union-attr]
    if encoding in TEXTS:
        assert item.note == f"Read as {encoding}, which was guessed, because the file is not UTF-8"
    else:
        assert item.note == f"Read as {encoding.upper()}"


def test_the_encoding_is_counted_over_the_records(words: Any, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(_file("jsonl", PLAIN).encode("utf-16") + _file("jsonl", PLAIN).encode("utf-16-le") * 2)
    data = DataSection(source=str(path), eval_fraction=0.0)
    facts = data_facts(load_records(data), Template.for_model(words), data)
    assert facts.train_records == 3
    assert "Read as UTF-16: 3 records." in facts.notices


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_documents_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    text = "\n\n".join(TEXTS["cp1252"])
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    (item,) = _items(tmp_path / "a.txt")
    assert item.content == text
    assert item.note.startswith(f"Read as {encoding}" if encoding == "cp1252" else "Read as UTF-16")
    (item,) = open_documents(tmp_path, DataSection(eval_fraction=0.0), Home(tmp_path / "home")).records.items()
    assert item.content == text
    assert item.note


def test_one_damaged_byte_is_named_and_makes_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    line = b'{"prompt": "Hi?", "completion": "Yes."}\n'
    path.write_bytes(line + line.replace(b"?", b"\xe9") + line)
    items = _items(path, malformed="skip")
    assert [item.problem for item in items] == ["", "column 15: not UTF-8", ""]
    with pytest.raises(WorkbenchError, match="line 2, column 15: not UTF-8"):
        _items(path)


@pytest.mark.parametrize(
    "head",
    [b"", b"{", b"plain", "é".encode() * 50 + b"\xff\xff", "é☃".encode()[:-1], b"\0{}", b"{\0}", b"\xff\xff\0\0\0"],
    ids=["empty", "a character", "ASCII", "mostly UTF-8", "cut off", "a zero first", "a zero", "no text"],
)
def test_what_stays_utf_8(head: bytes) -> None:
    assert encoding_of(head) == UTF_8


def test_utf_16_that_is_cut_off_in_a_character_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(_file("jsonl", PLAIN).encode("utf-16")[:-1])
    with pytest.raises(WorkbenchError, match=r"set\.jsonl is damaged: .*utf-16"):
        _items(path)


# -- JSON inside JSON -------------------------------------------------------------------------------------------------

RECORD = {"prompt": "Hi?", "completion": "Yes."}
TURNS = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yes."}]
TWICE = "Records encoded as JSON text inside a JSON string are decoded"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.jsonl", (json.dumps(json.dumps(RECORD)) + "\n") * 2),
        ("set.json", json.dumps([json.dumps(RECORD)] * 2)),
        ("whole.json", json.dumps(json.dumps([RECORD] * 2))),
        ("turns.jsonl", (json.dumps(json.dumps(TURNS)) + "\n") * 2),
    ],
)
def test_records_encoded_twice_are_decoded_and_counted(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    items = _items(tmp_path / name)
    assert [item.content and item.content.texts for item in items] == [["Hi?", "Yes."]] * 2  # type: ignore[union-attr]
    assert [item.note for item in items] == [TWICE] * 2


def test_text_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text('"hello"\n' + json.dumps(RECORD) + "\n")
    items = _items(tmp_path / "set.jsonl", malformed="skip")
    assert "expected a JSON object" in items[0].problem
    assert items[1].note == ""
