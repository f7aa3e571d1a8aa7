"""Mixtures of experts with the default recipe: what is trained is what the estimate says, and so is what is not."""

import json

import pytest

from bench.tiny_configs import tiny_config
from tests.conftest import _tiny_tokenizer
from tests.engine.runs_of_tiny import begin, ended, events_of
from workbench.errors import WorkbenchError
from workbench.estimate import price
from workbench.machine.memory_budget import MemoryBudget
from workbench.models.trees import skeleton_of
from workbench.planning.start_checks import judge
from workbench.recipe.schema import Recipe
from workbench.recipe.text import edit

# PEFT adapts the experts of some families. Of others it adapts the layers around them.
ADAPTED, UNREACHED = ("qwen3_moe", "deepseek_v3"), ("gpt_oss", "granitemoe")
BUDGET = MemoryBudget(free_bytes=64 * 2**30)


def default_recipe(folder, records, **changes):
    """Everything but model, data and length is left at its default: all linear layers, dropout 0.05, nf4."""
    return edit(
        Recipe(),
        {
            "model.source": str(folder), "data.source": str(records), "data.max_length": 64, "data.eval_fraction": 0.0,
            "training.max_steps": 1, "training.per_device_train_batch_size": 2, "training.save_steps": 0,
            "training.gradient_accumulation_steps": 1, **changes,
        },
    )  # fmt: skip


def save_tiny(folder, model_type):
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(model_type)
    config.vocab_size = _tiny_tokenizer(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type", [*ADAPTED, *UNREACHED])
def test_the_default_recipe_trains_what_the_estimate_says(home, records, tmp_path, model_type):
    recipe = default_recipe(save_tiny(tmp_path / model_type, model_type), records)
    skeleton = skeleton_of(home, recipe.model)
    priced = price(skeleton, recipe)
    assert judge(skeleton, recipe, BUDGET) is not None
    run, thread = begin(home, recipe)
    ended(thread)
    (preparing,) = [event for event in events_of(run, "phase") if event["phase"] == "preparing"]
    assert preparing["trainable_parameters"] == priced.adapter.trainable_parameters
    warned = " ".join(event["message"] for event in events_of(run, "warning"))
    said = "The experts get no adapter"
    assert (said in warned) == (said in priced.adapter.left_out_text) == (model_type in UNREACHED)
    dropped = "lora_dropout is 0: the experts of this model are stored as one weight"
    assert any(dropped in notice for notice in priced.notices) == (model_type in ADAPTED)
    reasons = " ".join(str(event) for event in events_of(run, "phase"))
    assert (dropped in warned + reasons) == (model_type in ADAPTED)
    saved = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["lora_dropout"] == (0.0 if model_type in ADAPTED else 0.05)
    if model_type != "qwen3_moe":
        return
    # A dropout that the user set is refused before the start, and by a run that starts anyway, in the same words.
    chosen = edit(recipe, {"adapter.lora_dropout": 0.1})
    with pytest.raises(WorkbenchError) as caught:
        judge(skeleton, chosen, BUDGET)
    _, thread = begin(home, chosen)
    thread.join(240)
    assert thread.error is not None
    assert thread.error.message == caught.value.message
    assert "lora_dropout does not support" in caught.value.message
    assert thread.error.cure == caught.value.cure
    assert "It works with lora_dropout 0." in caught.value.cure
