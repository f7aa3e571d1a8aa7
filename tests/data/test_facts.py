"""The figures of the Data screen, against counts made by hand and against what TRL does."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from workbench.data.facts import DataFacts
from workbench.data.sources import Records, _HeldOutSampler, load_records
from workbench.data.statistics import data_facts
from workbench.data.templates.template import Template
from workbench.data.tokens.chunking import chunks
from workbench.data.tokens.encode import encode_dataset
from workbench.data.tokens.examples import find_examples
from workbench.data.tokens.packing import packed_sequences, padding_waste
from workbench.errors import WorkbenchError
from workbench.progress import Progress
from workbench.recipe.sections.data import DataSection
from workbench.recipe.sections.training import TrainingSection
from workbench.storage.paths import Home


def write(path: Path, pairs: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"prompt": p, "completion": r}) + "\n" for p, r in pairs), encoding="utf-8")


@pytest.fixture
def five(tmp_path: Path) -> DataSection:
    """Records of 6, 9, 9, 12 and 15 tokens, the second and third equal; the last one's reply is 10 tokens long."""
    write(
        tmp_path / "five.jsonl",
        [
            ("why", "because"),
            ("add two and three", "five"),
            ("add two and three", "five"),
            ("add two and three", "because the sea is"),
            ("why", "the sea is blue and the sea is blue and"),
        ],
    )
    return DataSection(source=str(tmp_path / "five.jsonl"), eval_fraction=0.0, max_length=12)


def test_figures(five: DataSection, words: Any) -> None:
    facts = data_facts(load_records(five), Template.for_model(words), five, batch_size=2)
    assert facts.as_json() | {"examples": [], "longest": [], "histogram": []} == {
        "records": 5,
        "train_records": 5,
        "eval_records": 0,
        "skipped": 0,
        "skipped_reasons": {},
        "lost_reply_records": 0,
        "loses_many_replies": False,
        "format": "prompt",
        "reason": "the prompt is in prompt, reply is in completion",
        "template": "model",
        "max_length": 12,
        # 6 + 9 + 9 + 12 + 12; trained are 2 + 2 + 2 + 5 + 8
        "tokens": {"total": 48, "trained": 19, "masked": 29, "cut": 3},
        "length": {"p50": 9, "p90": 15, "p99": 15, "max": 15},
        "histogram": [],
        "truncated_records": 1,
        "packed_sequences": 5,
        "padding_waste": round(padding_waste([6, 9, 9, 12, 12], 2), 4),
        "packed_waste": round(1 - 48 / 60, 4),
        "duplicates": 1,
        "overlap": 0,
        "near_empty": 3,
        "longest": [],
        "unused": [],
        "largest_id": 18,
        "notices": [
            "Truncated at 12 tokens, losing the end of the response: 1 record.",
            "Duplicates: 1 record.",
        ],
        "padding": "concatenated without padding, or, if the model does not support it, padded with "
        "</s>, masked by position: the end of a response is trained",
        "exact": True,
        "examples": [],
    }
    assert [(index, tokens) for index, _where, tokens in facts.longest] == [(4, 15), (3, 12), (1, 9), (2, 9), (0, 6)]
    assert sum(count for _start, _end, count in facts.lengths.histogram) == 5
    assert [(e.text[a:b], t) for e in facts.examples[:1] for a, b, t in e.spans] == [
        ("<s> [Q] why [A]", False),
        (" because </s>", True),
    ]


def test_a_lost_reply_is_dropped_and_counted(five: DataSection, words: Any) -> None:
    data = five.model_copy(update={"max_length": 8})
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    # <s> [Q] add two and three [A] takes 7 of 8 tokens, so every record keeps a token of its reply
    assert (encoded.facts.lost_reply, encoded.facts.truncated, len(encoded.train)) == (0, 4, 5)
    write(Path(data.source), [("why", "because"), ("add two and three and five", "because")])
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    assert (encoded.facts.lost_reply, encoded.facts.records, len(encoded.train)) == (1, 1, 1)
    assert encoded.facts.lost_reply_share == 0.5
    assert encoded.facts.loses_many_replies
    assert encoded.facts.cut == 11
    assert encoded.notices == ["Skipped because max_length 8 cut off the whole response: 1 record."]


def test_steps_are_those_of_the_trainer() -> None:
    facts = DataFacts("prompt", "", "model", 64, train_records=323, packed_sequences=27)
    training = TrainingSection(
        num_train_epochs=2.5, per_device_train_batch_size=4, gradient_accumulation_steps=4, max_steps=-1
    )
    assert facts.steps_per_epoch(training, packing=False) == 21
    assert facts.steps(training, packing=False) == 53
    assert facts.steps_per_epoch(training, packing=True) == 2
    assert facts.steps(training.model_copy(update={"max_steps": 7}), packing=False) == 7


@pytest.mark.parametrize("seed", range(5))
def test_packing_is_trls(seed: int) -> None:
    import datasets
    import numpy as np
    from trl.data_utils import pack_dataset

    lengths = np.random.default_rng(seed).integers(1, 80, 500).tolist()
    dataset = datasets.Dataset.from_dict({"input_ids": [[1] * length for length in lengths]})
    assert packed_sequences(lengths, 64) == len(pack_dataset(dataset, 64, "bfd"))


def test_padding_waste() -> None:
    assert padding_waste([5, 5, 5, 5], 2) == 0
    assert padding_waste([1, 3], 2) == pytest.approx(2 / 6)
    assert padding_waste([], 2) == 0


@pytest.mark.parametrize(("share", "count"), [(0.1, 1000), (0.15, 1000), (0.05, 200), (0.5, 10), (0.3, 7)])
def test_the_share_held_out(share: float, count: int) -> None:
    picks = [0, 0]
    first, second = _HeldOutSampler(share), _HeldOutSampler(share)
    for _ in range(count):
        pick = first.takes_next()
        assert pick == second.takes_next()
        picks[pick] += 1
    assert abs(picks[1] - share * count) <= 1


def test_two_records_have_a_held_out_one(five: DataSection, words: Any) -> None:
    write(Path(five.source), [("why", "because"), ("add two", "five")])
    data = five.model_copy(update={"eval_fraction": 0.1})
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    assert (len(encoded.train), len(encoded.eval)) == (1, 1)


def test_overlap_with_an_own_held_out_part(five: DataSection, words: Any) -> None:
    path = Path(five.source)
    write(path.with_name("five.eval.jsonl"), [("why", "because"), ("why", "five")])
    facts = data_facts(load_records(five), Template.for_model(words), five)
    assert (facts.records, facts.train_records, facts.eval_records, facts.overlap) == (5, 5, 2, 1)
    assert "Train/eval overlap: 1 record." in facts.notices


def test_the_bundled_set(words: Any) -> None:
    data = DataSection()
    records = load_records(data)
    items = list(records.items())
    texts = [tuple(item.content.texts) for item in items]  # type: ignore[index]
    assert len([item for item in items if not item.held_out]) >= 300
    assert len([item for item in items if item.held_out]) == 24
    assert len({prompt.casefold() for prompt, _ in texts}) == len(texts)
    assert len({reply for _, reply in texts}) == len(texts)
    assert all(reply.startswith(("Aye", "Nay", "Avast")) for _, reply in texts)


def test_a_mix_with_weights(five: DataSection, words: Any, tmp_path: Path) -> None:
    write(tmp_path / "other.jsonl", [("why", "blue")] * 10)
    data = five.model_copy(update={"source": f"{five.source}*2 + {tmp_path / 'other.jsonl'}*0.5"})
    facts = data_facts(load_records(data), Template.for_model(words), data)
    assert facts.records == 2 * 5 + 5
    wrong = five.model_copy(update={"source": f"{five.source}*none"})
    with pytest.raises(WorkbenchError, match="'none' is not a valid weight"):
        load_records(wrong)


@pytest.mark.parametrize(
    ("split", "records"), [("train", 5), ("train[:2]", 2), ("train[1:3]", 2), ("train[3:]", 2), ("test[:1]", 1)]
)
def test_a_slice_of_a_local_file(split: str, records: int, five: DataSection, words: Any) -> None:
    data = five.model_copy(update={"split": split})
    assert data_facts(load_records(data), Template.for_model(words), data).records == records


def test_a_percentage_of_a_local_file_is_refused(five: DataSection) -> None:
    with pytest.raises(WorkbenchError, match="not a valid split of a local source"):
        load_records(five.model_copy(update={"split": "train[:10%]"}))


def test_a_sample_is_not_exact(five: DataSection, words: Any) -> None:
    template = Template.for_model(words)
    facts = data_facts(load_records(five), template, five, limit=2)
    assert (facts.records, facts.exact) == (2, False)
    assert data_facts(load_records(five), template, five, limit=5).exact


def test_progress_and_cancellation(tmp_path: Path, words: Any) -> None:
    write(tmp_path / "many.jsonl", [("why", "because")] * 1000)
    data = DataSection(source=str(tmp_path / "many.jsonl"))
    seen: list[Progress] = []
    stop = threading.Event()

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 2:
            stop.set()

    with pytest.raises(WorkbenchError) as caught:
        data_facts(load_records(data), Template.for_model(words), data, report=report, cancelled=stop.is_set)
    assert caught.value.kind == "cancelled"
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)  # type: ignore[type-var]
    assert [progress.detail for progress in seen] == ["256 records", "512 records"]


def test_records_can_be_looked_up(five: DataSection, words: Any) -> None:
    records, template = load_records(five), Template.for_model(words)
    assert [example.index for example in find_examples(records, template, five, start=2, count=2)] == [2, 3]
    assert [example.index for example in find_examples(records, template, five, search="BLUE")] == [4]
    # Of the template nothing is found, of the record all, what is cut off included.
    assert find_examples(records, template, five, search="[Q]") == []
    cut = five.model_copy(update={"max_length": 6})
    (found,) = find_examples(records, template, cut, search="blue")
    assert "blue" not in found.text
    assert found.cut == 9


def test_of_a_document_the_chunks_that_hold_a_text_are_found(tmp_path: Path, words: Any) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(["why " * 12, "sea " * 12, "be kind " * 6, "the sea"]))
    data = DataSection(source=str(tmp_path), max_length=16)
    found = find_examples(load_records(data), Template.for_model(words), data, search="Sea")
    chunks = find_examples(load_records(data), Template.for_model(words), data)
    assert [example for example in chunks if "sea" in example.text] == found
    assert 0 < len(found) < len(chunks)


def test_control_tokens_in_a_record_are_told(tmp_path: Path, words: Any) -> None:
    write(tmp_path / "x.jsonl", [("why </s>", "because")])
    data = DataSection(source=str(tmp_path / "x.jsonl"), eval_fraction=0.0)
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    assert encoded.notices == ["Text contains control tokens, which the model treats as such: 1 record."]


def test_long_documents_are_chunked_at_paragraphs(tmp_path: Path, words: Any) -> None:
    # 9 words, then 9, then 3: with max_length 16 the first chunk ends at the first paragraph's end, not at 16.
    paragraphs = ["the sea is blue and the sea is blue", "because the sea is blue and be kind why", "add two three"]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    data = DataSection(source=str(tmp_path), eval_fraction=0.0, max_length=16)
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    first = [15, 16, 17, 18, 11, 15, 16, 17, 18]
    second = [14, 15, 16, 17, 18, 11, 6, 7, 13]
    third = [8, 9, 10, 2]
    rows = [(row["input_ids"], row["labels"]) for row in encoded.train]
    assert rows[0] == (first, first)
    # Two tokens of context out of the chunk before, which are not trained again.
    assert rows[1] == ([17, 18, *second, *third], [-100, -100, *second, *third])
    assert len(rows) == 2
    assert encoded.facts.trained == 22


@pytest.mark.parametrize(
    ("total", "ends", "limit"), [(100, [], 16), (1000, [7, 40, 41, 300, 999], 64), (5, [5], 8), (33, [9, 18], 16)]
)
def test_chunks_hold_every_token_as_new_once(total: int, ends: list[int], limit: int) -> None:
    new: list[int] = []
    for chunk in chunks(range(total), ends, limit):
        assert 0 < chunk.end - chunk.start <= limit
        new += range(chunk.start + chunk.overlap, chunk.end)
    assert new == list(range(total))


def test_a_large_set_is_mapped_from_disk_and_its_file_removed(
    tmp_path: Path, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.data.tokens import file as token_file

    monkeypatch.setattr(token_file, "_MAX_IN_MEMORY", 0)
    write(tmp_path / "many.jsonl", [("why", "because")] * 2500)
    data = DataSection(source=str(tmp_path / "many.jsonl"), eval_fraction=0.1)
    home = Home(tmp_path / "home")
    encoded = encode_dataset(load_records(data, home), Template.for_model(words), data)
    assert (len(encoded.train), len(encoded.eval)) == (2250, 250)
    assert encoded.train[2249]["input_ids"] == [1, 4, 13, 5, 14, 2]
    assert len(list((home.cache / "data").iterdir())) == 2
    del encoded
    assert not list((home.cache / "data").iterdir())


def test_the_trainer_keeps_ids_and_labels(tiny_llama: Path, tmp_path: Path, words: Any) -> None:
    """TRL takes the columns as they are: what its collator is given is what was shown."""
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    write(tmp_path / "x.jsonl", [("why", "because"), ("add two and three", "five"), ("add", "the sea is blue")])
    data = DataSection(source=str(tmp_path / "x.jsonl"), eval_fraction=0.0, max_length=10)
    encoded = encode_dataset(load_records(data), Template.for_model(words), data)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=SFTConfig(output_dir=str(tmp_path), max_length=10, report_to=[], use_cpu=True, bf16=False),
        train_dataset=encoded.train,
        processing_class=words,
    )
    kept = [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
    assert kept == [(row["input_ids"], row["labels"]) for row in encoded.train]
    # The pad token is the end of sequence here: the reply's own is trained, the padding after it is not.
    assert words.pad_token_id in (None, words.eos_token_id)
    assert trainer.data_collator([trainer.train_dataset[n] for n in (0, 1)])["labels"].tolist() == [
        [-100, -100, -100, -100, 14, 2, -100, -100, -100],
        [-100, -100, -100, -100, -100, -100, -100, 12, 2],
    ]


def test_counts_for_the_journal_are_plain_data(five: DataSection, words: Any) -> None:
    encoded = encode_dataset(load_records(five), Template.for_model(words), five)
    assert json.loads(json.dumps(encoded.counts))["tokens"]["trained"] == 19
    assert isinstance(load_records(five), Records)
