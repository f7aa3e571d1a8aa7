"""Classification: a head trained with the adapter, with the loop of every other run."""

import json
import re
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import (
    adapter_digest,
    begin,
    begun,
    curve,
    ended,
    events_of,
    killed_after,
    resumed,
    split_and_padded,
)
from tests.tiny_labels import write_labels
from tests.tiny_pairs import write_pairs
from workbench.engine.client.protocol import EvaluateRequest, ReplyPiece, ReplyRequest
from workbench.engine.generation.evaluate import evaluate
from workbench.engine.generation.label_evaluation import head_outputs_of, text_outputs
from workbench.engine.generation.replies import prepare_reply, reply
from workbench.engine.kernels.loss_path import PADDED, LossPath
from workbench.engine.model.adapters import ActiveAdapters, use_adapters
from workbench.engine.model.sequence_adapter import SequenceHead
from workbench.engine.steering.controls import Command
from workbench.errors import WorkbenchError
from workbench.evaluation.formatting import better_text
from workbench.evaluation.result import read_evaluation
from workbench.recipe.text import edit


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.jsonl")


@pytest.fixture
def classifier(tiny_llama, labels):
    return edit(
        tiny_recipe(tiny_llama, labels),
        {
            "objective.kind": "classification",
            "quantization.method": "none",
            "quantization.compute_dtype": "float32",
            "data.eval_fraction": 0.25,
            "adapter.lora_dropout": 0.0,
            "training.per_device_train_batch_size": 4,
            "training.gradient_accumulation_steps": 2,
            "training.learning_rate": 0.01,
            "training.max_steps": 8,
            "training.save_steps": 3,
            "training.eval_steps": 4,
            "training.save_total_limit": 10,
        },
    )


def test_a_run_learns_labels_resumes_exactly_and_splits_its_micro_batches(home, classifier):
    whole, thread = begin(home, classifier)
    ended(thread)
    base = thread.base
    losses = list(curve(whole).values())
    assert losses[0] == pytest.approx(1.0986, abs=0.5)
    assert losses[-1] < 0.5
    first, *_, last = events_of(whole, "eval")
    assert last["accuracy"] > first["accuracy"]
    assert 0 < last["macro_f1"] <= 1
    assert "perplexity" not in last
    assert events_of(whole, "step")[-1]["accuracy"] == 1.0
    stored = json.loads((whole.adapter / "labels.json").read_text())
    assert stored["id2label"] == {"0": "land", "1": "sea", "2": "sky"}
    config = json.loads((whole.adapter / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert "score" not in config["target_modules"]

    again = killed_after(whole, 5, home)
    resumed(home, again, base)
    assert curve(again) == curve(whole)
    assert adapter_digest(again) == adapter_digest(whole)
    more, last_base = split_and_padded(home, classifier, base)
    for run in more:
        assert list(curve(run).values()) == pytest.approx(losses, abs=2e-5)
    _loads_in_plain_transformers(whole, base, classifier)
    _replies_with_probabilities(home, whole, base)
    _is_compared_with_the_majority(home, whole, base)
    # The base is that of every other run again.
    assert not last_base.is_altered
    last_base.detach_all()
    assert last_base.is_unchanged
    assert not hasattr(last_base.model, "score")


def _loads_in_plain_transformers(run, base, recipe):
    """The adapter on AutoModelForSequenceClassification gives the logits of the run."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    texts = ["wave 3 and tide", "hill 4 and field too too"]
    plain = AutoModelForSequenceClassification.from_pretrained(
        recipe.model.source, num_labels=3, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id
    )
    plain = PeftModel.from_pretrained(plain, run.adapter).eval()
    with torch.no_grad():
        theirs = plain(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    with use_adapters(base, ActiveAdapters(((run.adapter, 1.0),))):
        ours = text_outputs(base, [tokenizer(text)["input_ids"] for text in texts], PADDED)
        free = head_outputs_of(
            base,
            [{"input_ids": ids, "labels": ids} for ids in (tokenizer(text)["input_ids"] for text in texts)],
            2,
            lambda progress: None,
            bool,
            path=LossPath(),
        )
    assert torch.allclose(torch.tensor(ours), theirs, atol=1e-4)
    assert torch.allclose(torch.tensor(free), theirs, atol=1e-4)


def _replies_with_probabilities(home, run, base):
    pieces: list[ReplyPiece] = []
    request = ReplyRequest(target=run.id, messages=[{"role": "user", "content": "wave 3 and tide"}])
    model = prepare_reply(home, request, base, lambda load: load(), lambda progress: None, bool)
    reply(model, request, pieces.append, threading.Event())
    assert pieces[-1].done
    first, *others = pieces[-1].message.content.splitlines()
    assert first.startswith("sea  ")
    assert len(others) == 2
    # The base without the adapter still writes.
    request = ReplyRequest(
        target=run.id, adapter=False, messages=[{"role": "user", "content": "a"}], sampling={"max_new_tokens": 3}
    )
    pieces.clear()
    model = prepare_reply(home, request, base, lambda load: load(), lambda progress: None, bool)
    reply(model, request, pieces.append, threading.Event())
    assert 0 < pieces[-1].tokens <= 3


def _is_compared_with_the_majority(home, run, base):
    request = EvaluateRequest(run=run.id)
    file = evaluate(home, request, base, lambda load: load(), lambda progress: None, threading.Event())
    found = read_evaluation(file)
    majority, tuned = found.judged
    assert (majority.name, majority.folder) == ("majority class", None)
    assert majority.figures.accuracy.value == pytest.approx(found.per_record.label.count("sea") / found.records)
    right = [
        one == other for one, other in zip(found.per_record.label, found.per_record.predicted[run.id], strict=True)
    ]
    assert tuned.figures.accuracy.value == pytest.approx(sum(right) / len(right))
    assert tuned.figures.accuracy.value == pytest.approx(events_of(run, "eval")[-1]["accuracy"])
    assert tuned.figures.macro_f1.value == pytest.approx(events_of(run, "eval")[-1]["macro_f1"])
    assert tuned.figures.accuracy.low <= tuned.figures.accuracy.value <= tuned.figures.accuracy.high
    report = (run.path / "report.md").read_text()
    assert "majority class" in report
    assert "macro" in report
    assert " the majority class: held-out accuracy " in better_text(found, tuned)


def test_a_reward_model_scores_replies_and_is_compared_with_chance(home, classifier, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    changes = {"objective.kind": "reward", "data.source": str(pairs), "training.learning_rate": 0.005}
    run, thread = begin(home, edit(classifier, changes))
    ended(thread)
    base = thread.base
    first, *_, last = events_of(run, "eval")
    assert last["rewards"]["margin"] > first["rewards"]["margin"]
    assert events_of(run, "step")[-1]["rewards"]["accuracy"] == 1.0
    again = killed_after(run, 5, home)
    resumed(home, again, base)
    assert adapter_digest(again) == adapter_digest(run)

    request = EvaluateRequest(run=run.id)
    found = read_evaluation(
        evaluate(home, request, base, lambda load: load(), lambda progress: None, threading.Event())
    )
    chance, tuned = found.judged
    assert (chance.name, chance.figures.preference_accuracy.value) == ("chance", 0.5)
    assert tuned.figures.preference_accuracy.value == pytest.approx(last["rewards"]["accuracy"])
    assert tuned.figures.preference_margin.value == pytest.approx(last["rewards"]["margin"], abs=1e-4)

    def replied(*turns):
        pieces: list[ReplyPiece] = []
        messages = [{"role": role, "content": content} for role, content in turns]
        request = ReplyRequest(target=run.id, messages=messages)
        model = prepare_reply(home, request, base, lambda load: load(), lambda progress: None, bool)
        reply(model, request, pieces.append, threading.Event())
        return float(pieces[-1].message.content.removeprefix("score "))

    asked = ("user", "say sea 0")
    assert replied(asked, ("assistant", "sea it is")) > replied(asked, ("assistant", "sail perhaps, or not"))
    with pytest.raises(WorkbenchError, match="a reward model: it scores replies and writes none"):
        replied(asked)


def test_a_run_is_paused_without_its_memory_and_predicts_samples(home, classifier):
    recipe = edit(classifier, {"training.max_steps": 4})
    with begun(home, recipe, 1) as (run, thread):
        thread.controls.send(Command("pause", release=True))
        thread.controls.send(Command("resume"))
        thread.controls.send(Command("sample"))
    ended(thread)
    assert [event["release"] for event in events_of(run, "paused")] == [True]
    (sample,) = events_of(run, "sample")
    assert any(sample["replies"][0]["reply"].startswith(label) for label in ("sea", "land", "sky"))


def test_a_run_continues_an_adapter_with_its_head_or_says_why_not(home, classifier, tmp_path, records):
    """A classifier with the same labels in any order, or one that predicts tokens, with a new head."""
    short = {"training.max_steps": 2, "training.save_steps": 0, "training.eval_steps": 0}
    first, thread = begin(home, edit(classifier, short))
    ended(thread)
    base = thread.base
    folder = tmp_path / "reordered"
    shutil.copytree(first.adapter, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    (head,) = [name for name in weights if name.endswith(".score.weight")]
    about = json.loads((folder / "labels.json").read_text())
    assert list(about["label2id"]) == ["land", "sea", "sky"]
    weights[head] = weights[head][[2, 0, 1]]
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    SequenceHead("classification", ("sky", "land", "sea")).save(folder)
    runs = []
    for start in (first.id, str(folder)):
        run, thread = begin(home, edit(classifier, {**short, "adapter.continue_from": start}), base)
        ended(thread)
        base = thread.base
        runs.append(run)
    assert curve(runs[0]) == curve(runs[1])
    assert adapter_digest(runs[0]) == adapter_digest(runs[1])
    # It goes on from where the first one ended: the loss is not that of a new head.
    assert curve(runs[0])[1] != curve(first)[1]

    sft = {"objective.kind": "sft", "data.source": str(records)}
    tokens, thread = begin(home, edit(classifier, {**short, **sft}), base)
    ended(thread)
    run, thread = begin(home, edit(classifier, {**short, "adapter.continue_from": tokens.id}), thread.base)
    ended(thread)
    messages = [event["message"] for event in events_of(run, "warning")]
    assert any("the head of classification is a new one" in message for message in messages)
    base = thread.base

    SequenceHead("classification", ("sky", "earth", "sea")).save(folder)
    refused = {
        str(folder): (classifier, "has the labels sky, earth, sea, and the records have land, sea, sky"),
        first.id: (edit(classifier, sft), "is a classifier .*objective.kind is sft"),
    }
    for start, (recipe, words) in refused.items():
        _, thread = begin(home, edit(recipe, {**short, "adapter.continue_from": start}), base)
        thread.join(240)
        assert re.search(words, str(thread.error)), thread.error
        base = thread.base
