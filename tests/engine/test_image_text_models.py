"""Models that read images beside text, loaded whole and trained on text: all figures against transformers and PEFT."""

import json

import pytest
import torch

from tests.conftest import tiny_recipe
from tests.engine.runs_of_tiny import begin, curve, ended, events_of
from tests.engine.voices_of_tiny import QUESTION, answered, plain_reply
from tests.whole_models import CONFIGS, make_whole_model
from workbench.adapters.registry import peft_arguments
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
    settings = peft_arguments(recipe.adapter)[1] | {"target_modules": names}
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
    assert any("Layers without an adapter: vision" in event["message"] for event in events_of(run, "warning"))
    # The adapter loads in plain PEFT on the whole class: no key is missing, none is left over.
    peft = PeftModel.from_pretrained(_plain(folder), run.adapter)
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert saved["exclude_modules"]
    assert sum(p.numel() for n, p in peft.named_parameters() if "lora_" in n) == trained
    assert any(float(p.abs().sum()) > 0 for n, p in peft.named_parameters() if "lora_B" in n)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, records):
    """A finished QLoRA run on a model that reads images, with its home."""
    from workbench.storage.paths import Home

    folder = tmp_path_factory.mktemp("whole")
    model = make_whole_model(folder / "gemma3", "gemma3")
    home = Home(folder / "home")
    changes = {"quantization.method": "nf4", "training.max_steps": 3, "training.learning_rate": 0.02}
    run, thread = begin(home, _recipe(model, records, **changes))
    ended(thread)
    return home, run, model


def test_a_merged_model_is_whole_and_replies_as_base_and_adapter_do(whole_run, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    from workbench.export.request import Request
    from workbench.export.run import export_run

    home, run, folder = whole_run
    export_run(home, run, Request("merged", tmp_path / "out"), lambda progress: None, bool)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).eval()
    base = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    assert (tmp_path / "out" / "preprocessor_config.json").read_bytes() == (
        folder / "preprocessor_config.json"
    ).read_bytes()
    ours, theirs = merged.state_dict(), base.state_dict()
    assert ours.keys() == theirs.keys()
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed
    assert {name for name in changed if not name.startswith("model.language_model.layers")} == set(), (
        "vision is as it was"
    )
    expected = PeftModel.from_pretrained(base, run.adapter).merge_and_unload(safe_merge=True).eval().state_dict()
    assert {name for name in ours if not torch.equal(ours[name], expected[name])} == set()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForImageTextToText.from_pretrained" in card
    assert "image-text-to-text" in card


def test_an_exported_script_loads_the_whole_model_and_leaves_its_other_parts_alone(whole_run, tmp_path):
    from workbench.export.request import Request
    from workbench.export.run import export_run

    home, run, _ = whole_run
    export_run(home, run, Request("script", tmp_path / "out"), lambda progress: None, bool)
    script = (tmp_path / "out" / "train.py").read_text()
    assert "AutoModelForImageTextToText.from_pretrained(" in script
    assert r"'exclude_modules': '(?:model\\.vision_tower|model\\.multi_modal_projector)(?:\\..*)?'" in script


def test_a_chat_replies_as_transformers_and_peft_do(whole_run):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    from workbench.engine.client.protocol import Message, ReplyRequest, Sampling
    from workbench.engine.daemon.engine import Engine

    home, run, folder = whole_run
    messages = [Message(role="user", content=QUESTION)]
    request = ReplyRequest(target=run.id, messages=messages, sampling=Sampling(temperature=0, max_new_tokens=8))
    said, _, _ = answered(Engine(home), request)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, quantization_config=config)
    peft = PeftModel.from_pretrained(base, run.adapter).eval()
    assert said == plain_reply(peft, load_tokenizer(run.adapter), 8)
