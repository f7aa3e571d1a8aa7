"""A tokenizer with more tokens than the embedding has rows: the rows are added, trained, counted, saved and merged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from screens.adapter.token_rows_field import token_rows_setting
from tests.conftest import make_tiny_model
from tests.engine.voices_of_tiny import answered
from tests.export.alone import in_a_fresh_process
from tests.export.conftest import tiny_recipe, train
from tests.export.test_script import digest, losses_of
from workbench.data.dataset_stats import dataset_stats
from workbench.engine.client.protocol import Message, ReplyRequest, Sampling
from workbench.engine.daemon.engine import Engine
from workbench.engine.generation.reply_targets import resolve
from workbench.errors import WorkbenchError
from workbench.estimate.adapter.plan import AdapterDtypes, plan_adapter
from workbench.estimate.footprint import measure_base
from workbench.estimate.pricing import Pricing
from workbench.estimate.setup import Setup
from workbench.estimate.step import plan_step
from workbench.estimate.trace.predict import peak_from
from workbench.estimate.trace.run import trace_step
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.machine.device import Device
from workbench.models.trees import skeleton_of
from workbench.recipe.resolved import resolved
from workbench.recipe.text import edit
from workbench.runs.events import RunStarted
from workbench.runs.replay import Replay
from workbench.storage.paths import Home

NEW = ("<tool>", "</tool>", "<end>")


@pytest.fixture(scope="module")
def stretched(tiny_llama, tmp_path_factory):
    """The tiny Llama, whose tokenizer got three more tokens."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("stretched") / "llama"
    shutil.copytree(tiny_llama, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.add_tokens(list(NEW), special_tokens=True) == 3
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Records whose responses use the new tokens."""
    path = tmp_path_factory.mktemp("data") / "calls.jsonl"
    lines = [{"instruction": f"Question {n % 5}?", "response": f"<tool>{n % 5}</tool><end>"} for n in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("resized") / "home")


@pytest.fixture(scope="module")
def recipe(stretched, calls):
    return edit(tiny_recipe(stretched, calls), {"model.resize_embeddings": True, "training.save_steps": 3})


@pytest.fixture(scope="module")
def run(home, recipe):
    return train(home, recipe)


def test_without_it_the_refusal_names_it_and_with_it_the_records_are_counted(home, recipe):
    with pytest.raises(WorkbenchError) as refused:
        list(dataset_stats(home, edit(recipe, {"model.resize_embeddings": False})))
    assert "'<tool>', '</tool>', '<end>' cannot be used" in refused.value.message
    assert "model.resize_embeddings=true" in refused.value.cure
    *_, facts = dataset_stats(home, recipe)
    assert facts.train_records == 18


def test_the_new_rows_are_trained_and_priced_as_peft_has_them(home, recipe, run, stretched):
    skeleton = skeleton_of(home, recipe.model)
    rows = skeleton.root.facts["vocab_size"]
    assert skeleton.root.facts["new_tokens"] == 3
    line, off = token_rows_setting(), edit(recipe, {"model.resize_embeddings": False})
    assert line.note_for(recipe, skeleton) == "3 rows, 192 trainable parameters"
    assert line.note_for(off, skeleton) == line.note_for(recipe, skeleton_of(home, off.model)) == ""
    plan = plan_adapter(skeleton, recipe.adapter, AdapterDtypes("float32", "float32", "float32"))
    replay = Replay.of(run.journal)
    assert isinstance(replay.started, RunStarted)
    assert replay.facts.trainable_parameters == plan.trainable_parameters
    without = plan_adapter(skeleton_of(home, edit(recipe, {"model.resize_embeddings": False}).model), recipe.adapter)
    assert plan.trainable_parameters == without.trainable_parameters + 3 * 64
    file = run.adapter / "adapter_model.safetensors"
    with safe_open(file, framework="pt") as saved:
        names = [name for name in saved.keys() if "lora_" not in name]  # noqa: SIM118  (no mapping)
        (name,) = names
        trained = saved.get_tensor(name).float()
    assert name == "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    assert trained.shape == (3, 64)
    with safe_open(stretched / "model.safetensors", framework="pt") as base:
        start = base.get_tensor("model.embed_tokens.weight").float().mean(0)
    moved = (trained - start).abs().mean(1)
    assert (moved > 1e-3).all(), "every new row has learned"
    config = json.loads((run.adapter / "adapter_config.json").read_text())
    assert config["trainable_token_indices"] == {"model.embed_tokens": list(range(rows - 3, rows))}
    # A checkpoint holds the same, and not the whole embedding.
    checkpoint = next(run.checkpoints.glob("checkpoint-*")) / "adapter_model.safetensors"
    assert checkpoint.stat().st_size == file.stat().st_size


def test_embeddings_that_are_not_tied_get_new_rows_each(home, recipe, stretched, tmp_path):
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = make_tiny_model(tmp_path / "untied", LlamaForCausalLM, tie_word_embeddings=False)
    AutoTokenizer.from_pretrained(stretched).save_pretrained(folder)
    changes = {"model.source": str(folder), "training.max_steps": 2, "quantization.method": "none"}
    untied = edit(recipe, changes)
    run = train(home, untied)
    plan = plan_adapter(skeleton_of(home, untied.model), untied.adapter)
    assert Replay.of(run.journal).facts.trainable_parameters == plan.trainable_parameters
    with safe_open(run.adapter / "adapter_model.safetensors", framework="pt") as saved:
        names = sorted(name for name in saved.keys() if "lora_" not in name)  # noqa: SIM118  (no mapping)
    rows = "token_adapter.trainable_tokens_delta"
    assert names == [f"base_model.model.lm_head.{rows}", f"base_model.model.model.embed_tokens.{rows}"]


def test_a_step_with_new_rows_is_traced_and_the_formula_is_near_it(home, recipe):
    small = resolved(edit(recipe, {"quantization.method": "nf4", "quantization.compute_dtype": "bfloat16"}))
    peaks = {}
    for is_resized in (False, True):
        skeleton = skeleton_of(home, edit(small, {"model.resize_embeddings": is_resized}).model)
        setup = Setup.of(small)
        step = plan_step(setup)
        pricing = Pricing(skeleton, Device())
        timeline = trace_step(skeleton, small, step)
        base = measure_base(skeleton, step.storage)
        traced = peak_from(timeline, base, pricing.adapter(setup), step, small.adapter.r)
        peaks[is_resized] = traced.allocated_bytes
        assert pricing.peak(setup).allocated_bytes == pytest.approx(traced.allocated_bytes, rel=0.15)
    assert peaks[True] > peaks[False]


def test_chat_answers_with_the_new_tokens_and_the_folder_alone_does_too(home, run, tmp_path):
    engine = Engine(home)
    question = [Message(role="user", content="Question 1?")]
    request = ReplyRequest(target=run.id, messages=question, sampling=Sampling(temperature=0.0), max_new_tokens=8)
    reply, _, _ = answered(engine, request)
    shutil.copytree(run.adapter, tmp_path / "adapter")
    assert resolve(home, str(tmp_path / "adapter")).model.resize_embeddings
    again, _, _ = answered(engine, request.model_copy(update={"target": str(tmp_path / "adapter")}))
    assert reply == again


def test_merged_weights_have_the_rows_and_the_script_repeats_the_run(home, run, stretched, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export_run(home, run, Request("merged", tmp_path / "merged"), lambda progress: None, bool)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.bfloat16).eval()
    rows = len(AutoTokenizer.from_pretrained(tmp_path / "merged"))
    assert merged.config.vocab_size == merged.get_output_embeddings().weight.shape[0] == rows
    base = AutoModelForCausalLM.from_pretrained(stretched, dtype=torch.bfloat16)
    base.resize_token_embeddings(rows, mean_resizing=False)
    tuned = PeftModel.from_pretrained(base, run.adapter).eval()
    ids = torch.tensor([[1, 20, 33, rows - 3, 45, rows - 2, rows - 1]])
    with torch.inference_mode():
        ours, theirs = (model(input_ids=ids).logits.float() for model in (merged, tuned))
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() > 0.9
    assert (ours - theirs).abs().mean() < 0.05 * theirs.abs().mean()
    result = export_run(home, run, Request("adapter", tmp_path / "adapter"), lambda progress: None, bool)
    assert any("resize the base" in notice for notice in result.notices)
    export_run(home, run, Request("script", tmp_path / "script"), lambda progress: None, bool)
    in_a_fresh_process(tmp_path / "script", "train.py")
    assert json.loads((tmp_path / "script" / "losses.json").read_text()) == losses_of(run)
    made = tmp_path / "script" / "adapter" / "adapter_model.safetensors"
    assert digest(made) == digest(run.adapter / "adapter_model.safetensors")


def test_lora_on_the_same_embedding_is_refused_before_and_in_the_run(home, recipe):
    wrong = edit(recipe, {"adapter.target_modules": ["q_proj", "embed_tokens"]})
    with pytest.raises(WorkbenchError, match="cannot be trained beside LoRA"):
        plan_adapter(skeleton_of(home, wrong.model), wrong.adapter)
    whole = edit(recipe, {"adapter.modules_to_save": ["embed_tokens"]})
    plan = plan_adapter(skeleton_of(home, whole.model), whole.adapter)
    assert plan.saved_whole == ("model.embed_tokens",)


def test_an_adapter_for_more_rows_than_the_base_has_is_refused_in_words(home, recipe, run, tmp_path):
    from workbench.engine.model.adapters import attach
    from workbench.engine.model.load_base import load_base

    model = edit(recipe, {"model.resize_embeddings": False}).model
    base = load_base(home, model, recipe.quantization, lambda progress: None, bool)
    with pytest.raises(WorkbenchError, match=r"trains row \d+ of the embeddings, which have \d+"):
        attach(base, Path(run.adapter))
