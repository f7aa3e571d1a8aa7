"""A folder whose files are named by splits, as a downloaded hub dataset: what is trained on, and what is not."""

import json
from pathlib import Path

import pytest

from workbench.data.sources import load_records
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection

LAYOUTS = {
    "shards": ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"),
    "folders": ("train/a.jsonl", "train/b.jsonl", "test/a.jsonl"),
    "one name without a split": ("clean.jsonl", "more_training.jsonl", "clean.eval.jsonl"),
    "the name counts before the folder": ("test/train.jsonl", "test/train2.jsonl", "test/test.jsonl"),
}


def _write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"prompt": "Hi?", "completion": name}) + "\n")


def _read(folder: Path, split: str = "train") -> tuple[list[str], list[str], list[str]]:
    """The files that are trained on, those held out, and the notices."""
    records = load_records(DataSection(source=str(folder), split=split, eval_fraction=0.0))
    read: tuple[list[str], list[str]] = [], []
    for item in records.items():
        read[item.held_out].append(item.content.texts[1])  # type: ignore[union-attr]
    return *read, records.notices


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_for_evaluation_is_held_out_and_not_trained_on(layout: str, tmp_path: Path) -> None:
    *trained, held_out = LAYOUTS[layout]
    folder = tmp_path / "set"
    _write(folder, *LAYOUTS[layout])
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert _read(folder) == (
        sorted(trained),
        [held_out],
        ["Splits of set, by the names of its files: trained on train, evaluated on test."],
    )


def test_a_split_that_is_not_read_is_named_and_another_one_can_be_trained_on(tmp_path: Path) -> None:
    _write(tmp_path, "train.jsonl", "dev.jsonl", "test.jsonl")
    trained, held_out, (notice,) = _read(tmp_path)
    assert (trained, held_out) == (["train.jsonl"], ["dev.jsonl"])
    assert notice.endswith("trained on train, evaluated on validation; test not read.")
    assert _read(tmp_path, "test[:1]")[:2] == (["test.jsonl"], ["dev.jsonl"])
    assert _read(tmp_path, "val")[:2] == (["dev.jsonl"], ["test.jsonl"])
    with pytest.raises(WorkbenchError, match="has no split 'extra'") as refused:
        _read(tmp_path, "extra")
    assert refused.value.cure == "By the names of its files it has validation, test, train."


@pytest.mark.parametrize(
    "names", [("a.jsonl", "b.jsonl"), ("test-1.jsonl", "test-2.jsonl"), ("contest.jsonl", "b.jsonl")]
)
def test_without_several_splits_all_files_are_trained_on(names: tuple[str, ...], tmp_path: Path) -> None:
    _write(tmp_path, *names)
    assert _read(tmp_path) == (sorted(names), [], [])
