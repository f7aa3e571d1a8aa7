"""The ejected scripts of preference runs: TRL's own trainers on the run's tokens have the run's losses."""

import json

import pytest

from tests.export.conftest import tiny_recipe, train
from tests.journals import read_events
from tests.tiny_labels import write_labels
from tests.tiny_pairs import write_pairs
from workbench.errors import WorkbenchError
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.recipe.text import edit

pytestmark = pytest.mark.usefixtures("export_here")

OBJECTIVES = {
    "dpo": {"loss_type": "robust", "label_smoothing": 0.1, "rpo_alpha": 0.5},
    "orpo": {"beta": 0.3},
    "kto": {"undesirable_weight": 1.3},
    "reward": {"center_rewards_coefficient": 0.1},
    "kto anchored": {"loss_type": "apo_zero_unpaired", "desirable_weight": 0.8},
    "simpo": {},
    "cpo": {"loss_type": "ipo", "cpo_alpha": 0.5},
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_trls_own_trainer_has_the_losses_of_the_run(tiny_home, tiny_llama, pairs, scripts, tmp_path, name):
    kind = name.partition(" ")[0]
    run = train(
        tiny_home,
        tiny_recipe(
            tiny_llama,
            pairs,
            objective={"kind": kind, **OBJECTIVES[name]},
            quantization={"method": "none", "compute_dtype": "float32"},
            data={"eval_fraction": 0.05},
        ),
    )
    result = export_run(tiny_home, run, Request("script", tmp_path / "out"), lambda told: None, bool)
    assert all("is the local folder" in notice for notice in result.notices)
    printed = scripts.run(tmp_path / "out", "train.py")
    steps = {str(event["step"]): event for event in read_events(run.journal) if event["event"] == "step"}
    losses = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert losses == pytest.approx({step: event["loss"] for step, event in steps.items()}, abs=2e-5)
    assert losses["6"] < losses["1"]
    assert f"the run's was {steps['6']['loss']}." in printed
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert ("kl" in steps["6"]["rewards"]) == (kind == "kto")
    assert ("nll" in steps["6"]["rewards"]) == (kind in ("dpo", "orpo", "cpo"))


def test_a_run_that_continues_an_adapter_ejects_it_too(tiny_home, tiny_llama, pairs, scripts, tmp_path):
    sections = {"quantization": {"method": "none", "compute_dtype": "float32"}, "data": {"eval_fraction": 0.05}}
    start = train(tiny_home, tiny_recipe(tiny_llama, pairs, objective={"kind": "orpo"}, **sections))
    recipe = tiny_recipe(tiny_llama, pairs, objective={"kind": "dpo"}, **sections)
    run = train(tiny_home, edit(recipe, {"adapter.continue_from": start.id}))
    export_run(tiny_home, run, Request("script", tmp_path / "out"), lambda told: None, bool)
    scripts.run(tmp_path / "out", "train.py")
    losses = {str(event["step"]): event["loss"] for event in read_events(run.journal) if event["event"] == "step"}
    assert losses["1"] == pytest.approx(0.6931, abs=1e-4)
    assert json.loads((tmp_path / "out" / "losses.json").read_text()) == pytest.approx(losses, abs=2e-5)


def test_transformers_own_trainer_has_the_losses_of_a_classifier(tiny_home, tiny_llama, scripts, tmp_path):
    labels = write_labels(tmp_path / "labels.jsonl")
    run = train(
        tiny_home,
        tiny_recipe(
            tiny_llama,
            labels,
            objective={"kind": "classification"},
            adapter={"lora_dropout": 0.0},
            quantization={"method": "none", "compute_dtype": "float32"},
            data={"eval_fraction": 0.05},
        ),
    )
    export_run(tiny_home, run, Request("script", tmp_path / "out"), lambda told: None, bool)
    printed = scripts.run(tmp_path / "out", "train.py")
    steps = {str(event["step"]): event for event in read_events(run.journal) if event["event"] == "step"}
    losses = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert losses == pytest.approx({step: event["loss"] for step, event in steps.items()}, abs=2e-5)
    assert f"the run's was {steps['6']['loss']}." in printed
    # The adapter is exported with its labels; other forms have no counterpart.
    result = export_run(tiny_home, run, Request("adapter", tmp_path / "adapter"), lambda told: None, bool)
    assert json.loads((tmp_path / "adapter" / "labels.json").read_text())["id2label"]["1"] == "sea"
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card
    assert "held-out macro-F1" in card
    assert result.files
    head = "predicts labels with a head of its own"
    refusals = dict.fromkeys(("gguf", "ollama", "merged", "vllm"), head) | {
        "axolotl": "Axolotl has no classification training",
        "llamafactory": "LLaMA-Factory has no classification training",
    }
    for target, words in refusals.items():
        with pytest.raises(WorkbenchError, match=words):
            export_run(tiny_home, run, Request(target, tmp_path / target), lambda told: None, bool)
