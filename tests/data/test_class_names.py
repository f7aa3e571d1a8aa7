"""The names of classes that a dataset's features give to a column of numbers."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars

from workbench.data.labels import label_names
from workbench.data.rows import hub
from workbench.data.sources import load_records
from workbench.recipe.sections.data import DataSection

NAMES = ["urgent", "later", "never"]
ROWS = {"text": ["now", "soon", "tomorrow", "lost"], "label": [0, 1, 1, -1]}


@pytest.fixture(scope="module")
def dataset():
    disable_progress_bars()
    return Dataset.from_dict(ROWS, features=Features({"text": Value("string"), "label": ClassLabel(names=NAMES)}))


def saved(dataset, folder, kind):
    """The dataset as ``datasets`` saves it; returns the source."""
    if kind == "parquet":
        dataset.to_parquet(folder / "set.parquet")
        return folder / "set.parquet"
    dataset.save_to_disk(folder / "set")
    return folder / "set"


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_labels_are_the_names_of_the_classes_in_their_order(dataset, tmp_path, kind):
    section = DataSection(source=str(saved(dataset, tmp_path, kind)), eval_fraction=0.0)
    records = load_records(section, kind="labeled")
    items = list(records.items())
    assert [getattr(item.content, "label", None) for item in items] == ["urgent", "later", "later", None]
    assert "no label" in items[-1].problem
    # Not by the alphabet: ids are those of the dataset.
    assert label_names(records, lambda: False) == ("urgent", "later")
    # The numbers themselves are what other objectives read.
    assert [row.record["label"] for row in load_records(section).sources[0].reading.rows()] == [0, 1, 1, -1]


def test_a_dataset_of_the_hub_names_its_classes_too(dataset, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: dataset)
    hub.hub_rows.cache_clear()
    try:
        records = load_records(DataSection(source="owner/named", eval_fraction=0.0), kind="labeled")
        assert label_names(records, lambda: False) == ("urgent", "later")
    finally:
        hub.hub_rows.cache_clear()


def test_two_sources_with_other_classes_have_no_common_order(dataset, tmp_path):
    one = saved(dataset, tmp_path, "parquet")
    other = tmp_path / "more.jsonl"
    other.write_text('{"text": "aye", "label": "agreed"}\n')
    records = load_records(DataSection(source=f"{one} + {other}", eval_fraction=0.0), kind="labeled")
    assert label_names(records, lambda: False) == ("agreed", "later", "urgent")
