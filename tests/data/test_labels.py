"""Records of a text and its label: which columns are read, which labels there are, what is refused."""

import json

import pytest

from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.data.tokens.examples import find_examples
from workbench.errors import WorkbenchError
from workbench.recipe.sections.data import DataSection

PAIRS = (("wet", "yes"), ("dry", "no"))


def written(path, rows, **settings):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSection(source=str(path), eval_fraction=0.0, **settings)


def test_labels_are_found_counted_and_shown(tmp_path, words):
    rows = [{"sentence": f"good {n}", "label": n % 3 + 9, "note": "x"} for n in range(7)]
    data = written(tmp_path / "x.jsonl", [*rows, {"sentence": "none", "label": None}])
    records, template = load_records(data, kind="labeled"), Template.for_model(words)
    encoded = encode_dataset(records, template, data)
    # Numbers are sorted by value: 9 comes before 10.
    assert encoded.labels == ("9", "10", "11")
    assert list(encoded.train["label"]) == [0, 1, 2, 0, 1, 2, 0]
    assert encoded.train[0]["input_ids"] == words("good 0")["input_ids"]
    assert encoded.facts.labels == {"9": 3, "10": 2, "11": 2}
    assert "Labels: 3 (9 3, 10 2, 11 2)." in encoded.notices
    assert encoded.facts.skipped_reasons == {"column label is empty: no label": 1}
    assert [field.path for field in encoded.facts.unused] == ["note"]
    (example, *_) = find_examples(records, template, data)
    assert example.label == "9"
    assert type(example).from_json(example.as_json()) == example
    assert data_facts(records, template, data, limit=2).labels == {"9": 1, "10": 1}


def test_two_texts_and_conversations_have_labels_too(tmp_path, words):
    rows = [{"premise": "it rains", "hypothesis": f"it is {how}", "label": label} for how, label in PAIRS]
    pairs = written(tmp_path / "a.jsonl", rows)
    first, _ = load_records(pairs, kind="labeled").items()
    assert (first.content.content, first.content.label) == ("it rains\n\nit is wet", "yes")
    messages = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}]
    turns = [{"messages": messages, "intent": name} for name in ("greet", "other")]
    data = written(tmp_path / "b.jsonl", turns)
    records = load_records(data, kind="labeled")
    encoded = encode_dataset(records, Template.for_model(words), data)
    assert encoded.reads_turns
    assert "three" in find_examples(records, Template.for_model(words), data)[0].text


@pytest.mark.parametrize(
    ("rows", "columns", "words_of_error"),
    [
        ([{"text": "a", "x": 1}], {}, "no column that is known to hold the label"),
        ([{"label": "a", "x": 1}], {}, "no column that is known to hold the text"),
        ([{"text": "a", "label": "same"}] * 3, {}, "only the label 'same'"),
        ([{"text": "a", "label": [1]}] * 3, {}, "no label"),
        ([{"text": f"a {n}", "score": n + 0.5} for n in range(1200)], {"text": "text", "label": "score"}, "no label"),
        ([{"text": f"a {n}", "score": n} for n in range(1200)], {"text": "text", "label": "score"}, "more than 1,000"),
        ([{"text": "a", "label": 1}], {"text": "text"}, "names no label"),
        ([{"text": "a", "label": 1}], {"text": "text", "label": "kind"}, "has no column 'kind'"),
    ],
)
def test_what_is_no_label_is_refused_by_its_column(tmp_path, words, rows, columns, words_of_error):
    data = written(tmp_path / "x.jsonl", rows, columns=columns)
    with pytest.raises(WorkbenchError) as caught:
        encode_dataset(load_records(data, kind="labeled"), Template.for_model(words), data)
    assert words_of_error in str(caught.value)


def test_other_objectives_say_what_reads_labels(tmp_path):
    data = written(tmp_path / "x.jsonl", [{"text": "a", "label": 1}], columns={"text": "text", "label": "label"})
    with pytest.raises(WorkbenchError) as caught:
        load_records(data)
    assert "objective.kind to classification" in caught.value.cure
