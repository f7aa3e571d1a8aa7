"""Models that read images beside text, loaded whole and trained on text: all figures against transformers and PEFT."""

import json

import pytest
import torch

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import begin, curve, ended, events_of
from tests.whole_models import CONFIGS, make_whole_model
from workbench.data.sources import load_records
from workbench.data.templates.template import Template
from workbench.data.tokens.encode import encode_dataset
from workbench.models.tokenizers import load_tokenizer
from workbench.recipe.text import edit


def _plain(folder):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def _reached(model):
    """The linear layers that text gives a gradient, without the output layer."""
    ids = torch.arange(20, 50)[None]
    model.train()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight.grad is not None and module is not head
    ]
    model.zero_grad(set_to_none=True)
    return names


def _plain_losses(folder, recipe, home, steps):
    """Losses as transformers and PEFT have them, one record after the other and unpadded; and the trained count."""
    from peft import LoraConfig, get_peft_model

    rows = encode_dataset(
        load_records(recipe.data, home), Template.for_model(load_tokenizer(folder)), recipe.data
    ).train
    model = _plain(folder)
    names = _reached(model)
    torch.manual_seed(recipe.training.seed)
    settings = recipe.adapter.model_dump() | {"target_modules": names}
    peft = get_peft_model(model.requires_grad_(False), LoraConfig(task_type="CAUSAL_LM", **settings)).train()
    trained = [parameter for parameter in peft.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.training.learning_rate, weight_decay=0.0)
    total = sum(label != -100 for row in rows for label in row["labels"][1:])
    losses = []
    for _ in range(steps):
        losses.append(0.0)
        for row in rows:
            logits = peft(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1]
            labels = torch.tensor(row["labels"])[1:]
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="sum") / total
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, recipe.training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return losses, sum(parameter.numel() for parameter in trained)


def _recipe(folder, records, **changes):
    return edit(
        tiny_recipe(folder, records),
        {
            "quantization.method": "none",
            "quantization.compute_dtype": "float32",
            "data.eval_fraction": 0.0,
            # All records in one batch: their order does not matter.
            "training.per_device_train_batch_size": 20,
            "training.max_steps": 2,
            "training.warmup_ratio": 0.0,
            **changes,
        },
    )


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"llama4"}))
def test_losses_and_trained_layers_are_those_of_transformers_and_peft(home, records, tmp_path, name):
    from peft import PeftModel

    folder = make_whole_model(tmp_path / name, name)
    recipe = _recipe(folder, records)
    run, thread = begin(home, recipe)
    ended(thread)
    expected, trained = _plain_losses(folder, recipe, home, 2)
    assert list(curve(run).values()) == pytest.approx(expected, abs=1e-5)
    (preparing,) = [event for event in events_of(run, "phase") if event["phase"] == "preparing"]
    assert preparing["trainable_parameters"] == trained
    # The adapter loads in plain PEFT on the whole class: no key is missing, none is left over.
    peft = PeftModel.from_pretrained(_plain(folder), run.adapter)
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert saved["exclude_modules"]
    assert sum(p.numel() for n, p in peft.named_parameters() if "lora_" in n) == trained
    assert any(float(p.abs().sum()) > 0 for n, p in peft.named_parameters() if "lora_B" in n)
