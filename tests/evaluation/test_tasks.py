"""Evaluation on lm-eval's tasks, against lm-eval's own command on the same items."""

import json
import math
import re
import sys
from functools import partial

import pytest

from tests.evaluation.test_judge import Engine
from workbench.errors import WorkbenchError
from workbench.evaluation.comparison_text import task_table, task_texts
from workbench.evaluation.paired import flips, mcnemar, paired_means
from workbench.evaluation.result import BASE
from workbench.evaluation.task_result import GENERAL_TASKS, TASK_RESULTS

pytest.importorskip("lm_eval")
import datasets
import huggingface_hub
from lm_eval.tasks import TaskManager

from workbench.engine.generation import task_model
from workbench.engine.generation.task_evaluation import expanded

ASKED = "<|im_start|>user\nQuestion {n}?<|im_end|>\n<|im_start|>assistant\n"
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
target_delimiter: ""
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
WORDS = """
task: tiny_words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{reply}}}}"
generation_kwargs: {{until: ["<|im_end|>"], max_gen_toks: 12, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tasks on one file: the right reply among three by its likelihood, and written whole."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for n in range(5):
        reply = f"Aye, answer {n}."
        choices = [f"Aye, answer {(n + 1) % 5}.", reply, "No answer at all."]
        rows.append({"prompt": ASKED.format(n=n), "reply": reply, "choices": choices, "answer": 1})
    # One that no model was trained on.
    rows.append({"prompt": "Ships", "reply": " float.", "choices": [" sink.", " float.", "!"], "answer": 1})
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "choice.yaml").write_text(CHOICE.format(data=data))
    (folder / "words.yaml").write_text(WORDS.format(data=data))
    return folder


@pytest.fixture(scope="module")
def engine(home):
    return Engine(home)


@pytest.fixture(scope="module")
def found(engine, run, folder):
    return engine.evaluate_tasks(run, names=["tiny_choice", "tiny_words"], folder=str(folder))


def own_command(run, folder, tmp_path, monkeypatch):
    """The results of lm-eval's own command line on the adapter, in this process."""
    from lm_eval.__main__ import cli_evaluate

    recipe = run.recipe()
    arguments = [
        *("lm_eval", "run", "--model", "hf", "--tasks", "tiny_choice,tiny_words", "--include_path", str(folder)),
        *("--model_args", f"pretrained={recipe.model.source},dtype=float32,peft={run.adapter}", "--device", "cpu"),
        *("--batch_size", str(recipe.training.per_device_train_batch_size), "--output_path", str(tmp_path / "out")),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    cli_evaluate()
    (file,) = (tmp_path / "out").rglob("results_*.json")
    return json.loads(file.read_text())["results"]


def own_library(run, folder):
    """The results of lm-eval itself on the base, without reading its thousands of own tasks."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        "hf",
        {"pretrained": run.recipe().model.source, "dtype": "float32"},
        ["tiny_choice", "tiny_words"],
        batch_size=run.recipe().training.per_device_train_batch_size,
        device="cpu",
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
    )["results"]


def test_the_figures_are_those_of_lm_evals_own_command(run, folder, found, tmp_path, monkeypatch):
    choice, words = found.metrics
    assert (choice.task, choice.metric, choice.items) == ("tiny_choice", "acc", 6)
    assert (words.task, words.metric, words.items) == ("tiny_words", "exact_match", 6)
    theirs = {BASE: own_library(run, folder), run.id: own_command(run, folder, tmp_path, monkeypatch)}
    for name, results in theirs.items():
        assert choice.values[name].value == results["tiny_choice"]["acc,none"]
        assert words.values[name].value == results["tiny_words"]["exact_match,none"]
    assert words.values[BASE].value == 0
    assert words.values[run.id].value >= 3 / 6


def test_differences_are_paired_and_tested(run, found):
    words = found.metrics[1]
    right = round(words.values[run.id].value * 6)
    assert words.flips[run.id].model_dump() == {"gained": right, "lost": 0, "p": 2 / 2**right}
    minus = words.minus[run.id]
    assert minus.low <= minus.value == -right / 6 <= minus.high <= 0
    assert words.higher_is_better is True
    assert found.models == [BASE, run.id]
    assert found.versions["task tiny_words"] == "2.0"
    assert any(
        f"{run.id} is better than the base on tiny_words (exact_match): 0.0% → " in one for one in task_texts(found)
    )
    assert task_table(found)[2][:3] == ["tiny_words", "exact_match", "6"]


def test_results_are_kept_and_reported(run, found, folder):
    assert TASK_RESULTS.newest(run) == found
    told = json.loads((run.path / "report.json").read_text())["tasks"]
    assert told["metrics"] == found.model_dump(mode="json")["metrics"]
    text = (run.path / "report.md").read_text()
    assert "\n## Tasks\n" in text
    assert "tiny\\_words" in text
    # The folder is named, its place on this machine is not.
    assert told["folder"] == folder.name
    assert str(folder.parent) not in text + json.dumps(told)


def test_the_runs_template_and_examples_reach_the_prompt(engine, run, folder):
    text = (folder / "choice.yaml").read_text().replace("tiny_choice", "tiny_chat")
    # The question alone, without the markers of the template.
    (folder / "chat.yaml").write_text(text.replace("{{prompt}}", "{{prompt[17:28]}}"))
    found = engine.evaluate_tasks(run, names=["tiny_chat"], folder=str(folder), limit=5, chat_template=True)
    (metric,) = found.metrics
    assert (metric.items, found.limit, found.chat_template) == (5, 5, True)
    assert metric.values[run.id].value == 1


def test_an_adapter_keeps_its_embeddings_and_the_base_its_tokenizer(engine, run, folder):
    before = engine.base.tokenizer.padding_side, engine.base.tokenizer.chat_template
    engine.evaluate_tasks(run, names=["tiny_words"], folder=str(folder), limit=1)
    assert (engine.base.tokenizer.padding_side, engine.base.tokenizer.chat_template) == before
    assert engine.loads == 1


@pytest.mark.parametrize(
    ("names", "place", "words"),
    [
        (["no_such_task"], None, "has no task no_such_task"),
        (["tiny_choice"], "/no/such/folder", "There is no folder /no/such/folder"),
        (["tiny_remote"], None, "The data of tiny_remote is not "),
    ],
)
def test_what_cannot_be_evaluated_is_said(engine, run, folder, names, place, words, monkeypatch):
    # lm-eval's own tasks are not looked through, which takes seconds.
    monkeypatch.setattr(task_model, "TaskManager", partial(TaskManager, include_defaults=False))
    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    remote = (folder / "words.yaml").read_text().replace("tiny_words", "tiny_remote")
    remote = remote.replace("dataset_path: json", "dataset_path: nobody/has-this-data")
    (folder / "remote.yaml").write_text(re.sub("dataset_kwargs.*", "", remote))
    with pytest.raises(WorkbenchError) as refused:
        engine.evaluate_tasks(run, names=names, folder=place or str(folder))
    assert words in refused.value.message
    assert ("--task-folder" in refused.value.cure) == (place is None)


def test_the_general_tasks_have_a_name():
    assert expanded(["general", "gsm8k", "piqa"]) == [*GENERAL_TASKS, "gsm8k"]


def test_a_stopped_evaluation_keeps_nothing(engine, run, folder):
    before = TASK_RESULTS.paths(run)
    engine.cancelled.set()
    try:
        with pytest.raises(WorkbenchError) as stopped:
            engine.evaluate_tasks(run, names=["tiny_words"], folder=str(folder))
    finally:
        engine.cancelled.clear()
    assert stopped.value.kind == "cancelled"
    assert TASK_RESULTS.paths(run) == before


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (9, 1, 22 / 1024), (1, 9, 22 / 1024), (2, 2, 1.0)])
def test_mcnemar(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_mcnemar_of_many_is_that_of_the_normal_distribution():
    # 600 against 500: z = (100 − 1) / √1100, with the correction for continuity.
    assert mcnemar(600, 500) == pytest.approx(math.erfc(99 / math.sqrt(1100) / math.sqrt(2)), rel=0.02)


def test_flips_are_only_for_right_and_wrong():
    assert flips([0.5, 1], [1, 0]) is None
    counted = flips([1, 0, 0, 1], [0, 1, 1, 1])
    assert (counted.gained, counted.lost) == (2, 1)


def test_paired_intervals_are_narrower_than_the_models_own():
    base = [n % 2 for n in range(200)]
    model = [*base[:-10], *[1] * 10]
    values, minus = paired_means({BASE: base, "run": model}, draws=500, seed=0)
    assert minus["run"].value == pytest.approx(values[BASE].value - values["run"].value)
    width = minus["run"].high - minus["run"].low
    assert 0 < width < (values["run"].high - values["run"].low) / 2
