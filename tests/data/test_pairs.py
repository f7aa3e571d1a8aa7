"""Pairs of a chosen and a rejected response: read in any layout, tokenized side by side, counted, shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.popular_sets import Layout
from tests.data.test_popular_sets import LAYOUTS, written
from tests.data.test_records import tokenizer_of_bytes
from workbench.data.facts import Example
from workbench.data.records.conversation import Conversation, Pair
from workbench.data.sources import load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.errors import WorkbenchError
from workbench.evaluation.eval_set import build_eval_set
from workbench.recipe.schema import Recipe
from workbench.recipe.sections.data import DataSection
from workbench.recipe.text import RecipeError, edit, from_yaml, to_yaml
from workbench.storage.paths import Home

USER = {"role": "user", "content": "Hi?"}
YES = {"role": "assistant", "content": "Yes."}
NO = {"role": "assistant", "content": "No."}
MORE = {"role": "user", "content": "Sure?"}
TURNS = [("user", "Hi?"), ("assistant", "Yes.")], [("user", "Hi?"), ("assistant", "No.")]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of_bytes()


def file_of(folder: Path, *records: dict[str, Any]) -> DataSection:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return DataSection(source=str(path), eval_fraction=0.0)


def pair_of(folder: Path, record: dict[str, Any], **settings: Any) -> Pair:
    data = file_of(folder, record).model_copy(update=settings)
    (item,) = load_records(data, kind="pairs").items()
    assert isinstance(item.content, Pair), item.problem
    return item.content


def turns(side: Conversation | str) -> list[tuple[str, str]]:
    assert isinstance(side, Conversation)
    return [(message["role"], message["content"]) for message in side.messages]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."},
        {"question": "Hi?", "chosen": [YES], "rejected": [NO]},
        {"prompt": [USER], "chosen": [YES], "rejected": [NO]},
        {"prompt": "Hi?", "chosen": [USER, YES], "rejected": [USER, NO], "score_chosen": 2.0},
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"messages": [USER, YES], "rejected_messages": [USER, NO]},
        {
            "conversations": [{"from": "human", "value": "Hi?"}],
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi?\n\nAssistant: No."},
    ],
)
def test_pairs_are_read_in_any_layout(record: dict[str, Any], tmp_path: Path) -> None:
    pair = pair_of(tmp_path, record)
    assert (turns(pair.chosen), turns(pair.rejected)) == TURNS


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    record = {"asked": "Hi?", "better": "Yes.", "worse": "No.", "rules": "Be brief."}
    columns = {"prompt": "asked", "chosen": "better", "rejected": "worse", "system": "rules"}
    pair = pair_of(tmp_path, record, columns=columns)
    assert turns(pair.rejected) == [("system", "Be brief."), *TURNS[1]]
    for wrong, words in (({"chosen": "better"}, "lacks rejected"), ({**columns, "text": "asked"}, "sets text beside")):
        with pytest.raises(WorkbenchError, match=words):
            pair_of(tmp_path, record, columns=wrong)


PREFERENCES = [layout for layout in LAYOUTS if "data.columns={" in layout.cure and "chosen" in layout.record]


@pytest.mark.parametrize("layout", PREFERENCES, ids=[layout.name for layout in PREFERENCES])
def test_the_popular_sets_of_pairs_are_read(layout: Layout, tokenizer: Any, tmp_path: Path) -> None:
    data = written(layout, tmp_path)
    records = load_records(data, kind="pairs")
    assert (records.pairs, records.format) == (True, "preference")
    facts = data_facts(records, Template.for_model(tokenizer, "chatml"), data)
    assert (facts.records, facts.skipped) == (2, 0)
    for example in facts.examples:
        assert example.rejected is not None
        sides = [
            "".join(side.text[start:end] for start, end, trained in side.spans if trained)
            for side in (example, example.rejected)
        ]
        assert all(side.endswith("<|im_end|>") for side in sides)
        assert sides[0] != sides[1]
        assert example.text[: example.parts_at] == example.rejected.text[: example.parts_at]
        assert not any(path in ("chosen", "rejected") for path in example.unused)
    assert {field.path for field in facts.unused if field.asks} <= {"conversation"}


def test_each_side_is_the_record_that_training_on_it_alone_would_feed(tokenizer: Any, tmp_path: Path) -> None:
    """Earlier responses belong to the prompt; the sides of a multi-turn pair part where their turns differ."""
    history = [USER, YES, MORE]
    data = file_of(tmp_path, {"chosen": [*history, YES], "rejected": [*history, NO]})
    template = Template.for_model(tokenizer, "chatml")
    encoded = encode_dataset(load_records(data, kind="pairs"), template, data)
    (row,) = encoded.train
    for ids, labels, last in (("input_ids", "labels", YES), ("rejected_ids", "rejected_labels", NO)):
        alone = template.encode_conversation(Conversation([*history, last], untrained=frozenset({1})))
        assert row[ids] == alone.input_ids
        assert row[labels] == [
            token if trained else -100 for token, trained in zip(alone.input_ids, alone.trained, strict=True)
        ]
    assert encoded.facts.total == len(row["input_ids"]) + len(row["rejected_ids"])
    assert encoded.facts.trained == sum(label != -100 for label in row["labels"] + row["rejected_labels"])
    assert encoded.facts.lengths.max == max(len(row["input_ids"]), len(row["rejected_ids"]))


def test_plain_text_parts_where_it_differs(tokenizer: Any, tmp_path: Path) -> None:
    data = file_of(tmp_path, {"chosen": "The sea is blue.", "rejected": "The sea is broad."})
    records = load_records(data, kind="pairs")
    (example,) = data_facts(records, Template.for_model(tokenizer, "chatml"), data).examples
    assert example.rejected is not None
    trained = [[side.text[a:b] for a, b, use in side.spans if use] for side in (example, example.rejected)]
    assert [texts[0][:4] for texts in trained] == ["lue.", "road"]
    assert Example.from_json(json.loads(json.dumps(example.as_json()))) == example


def test_equal_and_cut_pairs_are_counted_and_not_trained(tokenizer: Any, tmp_path: Path) -> None:
    long = "y" * 100
    data = file_of(
        tmp_path,
        {"prompt": "Hi?", "chosen": "Yes.", "rejected": "Yes."},
        {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No, " + long},
        {"prompt": "Hi?", "chosen": long + "1", "rejected": long + "2"},
        {"prompt": long, "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Hi?", "chosen": "", "rejected": "No."},
    ).model_copy(update={"max_length": 60})
    facts = encode_dataset(load_records(data, kind="pairs"), Template.for_model(tokenizer, "chatml"), data).facts
    assert (facts.train_records, facts.truncated, facts.lost_reply) == (1, 2, 1)
    assert facts.skipped_reasons == {
        "chosen and rejected are the same": 1,
        "chosen and rejected are the same once truncated to max_length": 1,
        "column chosen is empty": 1,
    }


def test_pairs_and_objective_must_fit(tmp_path: Path) -> None:
    pairs = file_of(tmp_path, {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."})
    with pytest.raises(WorkbenchError, match="pairs of a chosen and a rejected response") as refused:
        load_records(pairs)
    assert "objective.kind to dpo" in refused.value.cure
    with pytest.raises(WorkbenchError, match="one response per prompt") as refused:
        load_records(DataSection(), kind="pairs")
    assert "objective.kind to sft" in refused.value.cure
    assert {records.pairs for records in (load_records(pairs, kind=None), load_records(DataSection(), kind=None))} == {
        True,
        False,
    }
    mixed = pairs.model_copy(update={"source": f"{pairs.source} + first-mate"})
    with pytest.raises(WorkbenchError, match="mixes pairs"):
        load_records(mixed, kind=None)


def test_a_recipe_of_before_is_supervised_and_written_as_before() -> None:
    assert "objective" not in to_yaml(Recipe())
    assert from_yaml("adapter: {r: 8}").objective.kind == "sft"
    recipe = edit(Recipe(), {"objective.kind": "dpo", "objective.beta": 0.2})
    assert from_yaml(to_yaml(recipe)) == recipe
    assert recipe.trained_adapter.lora_dropout == 0.0
    assert edit(recipe, {"objective.kind": "sft"}).trained_adapter.lora_dropout == 0.05
    refused = {
        "adapter.init_lora_weights": "pissa",
        "adapter.bias": "all",
        "data.packing": True,
        "data.completion_only": False,
        "data.format": "prompt",
    }
    for path, value in refused.items():
        with pytest.raises(RecipeError) as found:
            edit(recipe, {path: value, "quantization.method": "none"})
        assert [problem.path for problem in found.value.problems] == [path]
    assert edit(recipe, {"objective.loss_type": "robust", "objective.label_smoothing": 0.1}).objective.beta == 0.2


def test_an_evaluation_takes_the_chosen_responses(tokenizer: Any, tmp_path: Path) -> None:
    data = file_of(tmp_path, {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."})
    template = Template.for_model(tokenizer, "chatml")
    found = build_eval_set(
        Home(tmp_path / "home"),
        data,
        template,
        is_run_data=False,
        records=0,
        replies=1,
        prompts=[],
        report=lambda progress: None,
        cancelled=bool,
    )
    (sample,), (question,) = found.samples, found.questions
    assert tokenizer.decode([label for label in sample.labels if label != -100]) == "Yes.<|im_end|>"
    assert (question.text, question.reference) == ("Hi?", "Yes.")


def test_responses_that_a_label_calls_good_or_bad_are_unpaired(tokenizer: Any, tmp_path: Path) -> None:
    template = Template.for_model(tokenizer, "chatml")
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}]
    data = file_of(
        tmp_path,
        {"prompt": "Hi?", "completion": "Yes.", "label": True},
        {"prompt": [turns[0]], "completion": [turns[1]], "label": False},
        {"prompt": "Hi?", "completion": "Perhaps.", "label": None},
    ).model_copy(update={"eval_fraction": 0.0})
    with pytest.raises(WorkbenchError, match="marks as good or bad") as refused:
        load_records(data)
    assert "set objective.kind to kto" in refused.value.cure
    with pytest.raises(WorkbenchError, match="need pairs of a chosen and a rejected response"):
        load_records(data, kind="pairs")
    encoded = encode_dataset(load_records(data, kind="unpaired"), template, data)
    assert encoded.train["good"] == [1, 0]
    assert [trained_text(row, tokenizer) for row in encoded.train] == ["Yes.<|im_end|>", "No.<|im_end|>"]
    assert encoded.facts.skipped_reasons == {"column label is empty": 1}
    # Columns of other names, and a whole conversation of which the last response counts.
    turns = [*turns, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    named = file_of(tmp_path, {"talk": turns, "ok": "False"}).model_copy(
        update={"columns": {"messages": "talk", "label": "ok"}, "eval_fraction": 0.0}
    )
    encoded = encode_dataset(load_records(named, kind="unpaired"), template, named)
    assert encoded.train["good"] == [0]
    assert trained_text(encoded.train[0], tokenizer) == "So.<|im_end|>"


def test_pairs_become_a_good_and_a_bad_response(tokenizer: Any, tmp_path: Path) -> None:
    data = file_of(
        tmp_path,
        {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Oh?", "chosen": "Ah.", "rejected": "Ah."},
    ).model_copy(update={"eval_fraction": 0.0})
    encoded = encode_dataset(load_records(data, kind="unpaired"), Template.for_model(tokenizer, "chatml"), data)
    assert encoded.train["good"] == [1, 0]
    assert [trained_text(row, tokenizer) for row in encoded.train] == ["Yes.<|im_end|>", "No.<|im_end|>"]
    assert (encoded.facts.train_records, encoded.facts.skipped) == (2, 1)


def trained_text(row: Any, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in row["labels"] if label != -100]))


def test_an_objective_takes_its_own_keys_and_defaults() -> None:
    recipe = edit(Recipe(), {"objective.kind": "simpo"})
    assert (recipe.objective.beta, recipe.objective.cpo_alpha) == (2.0, 0.0)
    # What nobody has set follows the objective; a loss that it does not have goes with the old one.
    recipe = edit(recipe, {"objective.kind": "dpo", "objective.loss_type": "ipo"})
    assert recipe.objective.beta == 0.1
    recipe = edit(recipe, {"objective.kind": "kto", "objective.label_smoothing": 0.1})
    assert (recipe.objective.loss_type, recipe.objective.unused_keys) == ("kto", ["label_smoothing"])
    with pytest.raises(RecipeError, match="ipo is not a loss of kto; set it to kto or apo_zero_unpaired"):
        from_yaml("objective: {kind: kto, loss_type: ipo}")
    with pytest.raises(RecipeError, match="compares each response with the others of its micro-batch"):
        edit(recipe, {"training.per_device_train_batch_size": 1})
    automatic = edit(recipe, {"training.per_device_train_batch_size": "auto", "training.effective_batch_size": 9})
    assert automatic.least_micro_batch == 3
