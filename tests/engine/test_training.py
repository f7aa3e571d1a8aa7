"""Real runs of a tiny Llama: every kind of base and adapter, from recipe to adapter folder."""

import json
import math
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.journals import JournalWriter, read_events
from workbench import estimate
from workbench.engine.metrics.step_clock import HostTimer, StepClock
from workbench.engine.training.session.journal_callback import JournalCallback
from workbench.engine.training.thread import TrainingThread
from workbench.progress import Progress
from workbench.recipe.text import edit
from workbench.runs.folder import create_run, summarise


def train(home, recipe, base=None):
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe, base)
    thread.start()
    thread.join(timeout=240)
    assert not thread.is_alive()
    return run, thread


VARIANTS = {
    "qlora": {},
    "nf4 without double quantization": {"quantization.double_quant": False},
    "fp4": {"quantization.method": "fp4"},
    "int8": {"quantization.method": "int8", "quantization.compute_dtype": "float32"},
    "16-bit": {"quantization.method": "none"},
    "float32": {"quantization.method": "none", "quantization.compute_dtype": "float32"},
    "dora": {"adapter.use_dora": True},
    "rslora on attention": {"adapter.use_rslora": True, "adapter.target_modules": ["q_proj", "v_proj"]},
    "pissa": {
        "quantization.method": "none",
        "quantization.compute_dtype": "float32",
        "adapter.init_lora_weights": "pissa",
    },
    "checkpointing": {"training.gradient_checkpointing": True},
    "accumulation": {"training.gradient_accumulation_steps": 2},
    "packing": {"data.packing": True, "data.max_length": 64, "training.per_device_train_batch_size": 1},
    "whole text": {"data.completion_only": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_learns_and_leaves_a_standard_adapter(home, recipe, variant):
    run, thread = train(home, edit(recipe, VARIANTS[variant]))
    events = read_events(run.journal)
    assert thread.error is None, [e for e in events if e["event"] == "error"]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_ended"
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.2
    summary = summarise(run)
    assert summary.state == "finished"
    assert summary.perplexity["tuned"] < summary.perplexity["base"]
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert not list(run.adapter.glob("*.bin"))
    config = json.loads((run.adapter / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["base_model_name_or_path"] == recipe.model.source


def test_step_events_hold_what_a_reader_needs(home, recipe):
    run, _ = train(home, recipe)
    events = read_events(run.journal)
    started = events[0]
    assert started["versions"]["torch"]
    assert started["recipe_hash"]
    steps = [event for event in events if event["event"] == "step"]
    for number, step in enumerate(steps, 1):
        assert step["step"] == number
        assert step["max_steps"] == 8
        assert step["tokens"] > 0
        assert step["seconds"] > 0
        assert math.isfinite(step["grad_norm"])
        assert step["learning_rate"] == pytest.approx(0.02)
        assert step["host"]["rss"] > 0
    assert steps[-1]["eta_seconds"] == 0
    assert [event["phase"] for event in events if event["event"] == "phase"][-1] in ("saving", "evaluating")


def test_evaluations_in_between_come_after_their_step(home, recipe):
    run, _ = train(home, edit(recipe, {"training.eval_steps": 3}))
    told = [(event["event"], event["step"]) for event in read_events(run.journal) if event["event"] in ("step", "eval")]
    assert [step for event, step in told if event == "eval"] == [0, 3, 6, 8]
    for step in (3, 6):
        assert told[told.index(("eval", step)) - 1] == ("step", step)
    # That training goes on is told before the next step ends, which may take long.
    names = [(event["event"], event.get("phase")) for event in read_events(run.journal)]
    evaluations = [index for index, (event, _) in enumerate(names) if event == "eval"]
    for index in evaluations[:-1]:
        after = [name for name in names[index + 1 :] if name[0] in ("phase", "step")]
        assert after[0] == ("phase", "training")


def test_the_engine_says_that_it_trains_before_the_first_step_has_ended(tmp_path):
    shown: list[Progress] = []
    with JournalWriter(tmp_path / "journal.jsonl") as journal:
        told = JournalCallback(journal, shown.append, lambda: 0, StepClock(None, None, HostTimer()), lambda *_: None)
        told.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=8), None)
    assert shown == [Progress(phase="training", fraction=0.0, detail="step 0/8")]
    (event,) = read_events(tmp_path / "journal.jsonl")
    assert (event["phase"], event["fraction"], event["max_steps"]) == ("training", 0.0, 8)


def test_a_run_tells_the_peak_it_expects_and_the_one_it_had(home, recipe):
    import torch

    run, thread = train(home, recipe)
    (preparing,) = [e for e in read_events(run.journal) if e["event"] == "phase" and e["phase"] == "preparing"]
    predicted = preparing["predicted"]
    terms = dict(predicted["terms"])
    del terms["cuda_context"]
    assert sum(terms.values()) == predicted["allocated_bytes"]
    # All of the base lies in memory, and the records are shorter than the recipe allows them to be.
    assert terms["weights"] > thread.base.footprint / 2
    assert 8 < predicted["length"] < recipe.data.max_length
    summary = summarise(run)
    assert summary.predicted_peak == predicted
    assert (summary.measured_peak is not None) == torch.cuda.is_available()


def test_a_peak_that_cannot_be_predicted_does_not_fail_a_run(home, recipe, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("an estimator with a mistake in it")

    monkeypatch.setattr(estimate, "price", refuse)
    run, thread = train(home, recipe)
    assert thread.error is None
    summary = summarise(run)
    assert (summary.state, summary.predicted_peak) == ("finished", None)


def test_the_same_base_serves_run_after_run(home, recipe):
    _, first = train(home, recipe)
    again, second = train(home, recipe, first.base)
    assert second.base is first.base
    other, third = train(home, edit(recipe, {"quantization.method": "none"}), second.base)
    assert third.base is not second.base
    losses = [[e["loss"] for e in read_events(run.journal) if e["event"] == "step"] for run in (again, other)]
    first_losses = [e["loss"] for e in read_events(first.run_folder.journal) if e["event"] == "step"]
    # Nothing of the first run is left on the base: the second is the same run again.
    assert losses[0] == pytest.approx(first_losses, rel=1e-5)


def test_a_loaded_adapter_gives_the_trained_loss_in_a_foreign_process(home, recipe, tiny_llama):
    """Plain transformers + PEFT, with no import of this project, get the engine's own greedy reply."""
    from workbench.data.templates.template import Template
    from workbench.engine.client.protocol import Message, Sampling
    from workbench.engine.generation.generation import generate_reply

    run, thread = train(home, edit(recipe, {"training.max_steps": 30}))
    base = thread.base
    import threading

    template = Template.load(run.adapter, base.tokenizer)
    ours = generate_reply(
        base,
        template,
        [Message(role="user", content="Question 3?")],
        Sampling(temperature=0, max_new_tokens=12),
        lambda piece: None,
        threading.Event(),
    )
    script = f"""
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
dtype = torch.{base.precision.compute}
config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                            bnb_4bit_compute_dtype=dtype)
base = AutoModelForCausalLM.from_pretrained({str(tiny_llama)!r}, quantization_config=config, dtype=dtype)
model = PeftModel.from_pretrained(base, {str(run.adapter)!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({str(run.adapter)!r})
prompt = tokenizer.apply_chat_template([{{"role": "user", "content": "Question 3?"}}], add_generation_prompt=True,
                                       return_tensors="pt", return_dict=True)
output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
sys.stdout.write("REPLY:" + tokenizer.decode(output[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
assert "workbench" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("REPLY:")[1] == ours
    assert ours.startswith("Aye, answer")


def test_stopping_saves_what_was_learned(home, recipe):
    run = create_run(home, edit(recipe, {"training.max_steps": 100000}))
    thread = TrainingThread(home, run, edit(recipe, {"training.max_steps": 100000}))
    thread.start()
    _wait_for_step(run, 3)
    thread.controls.stop(save=True)
    thread.join(timeout=60)
    summary = summarise(run)
    assert summary.state == "stopped"
    assert 3 <= summary.step < 100000
    assert (run.adapter / "adapter_model.safetensors").is_file()


def test_stopping_may_discard(home, recipe):
    recipe = edit(recipe, {"training.max_steps": 100000})
    run = create_run(home, recipe)
    thread = TrainingThread(home, run, recipe)
    thread.start()
    _wait_for_step(run, 1)
    thread.controls.stop(save=False)
    thread.join(timeout=60)
    assert summarise(run).state == "stopped"
    assert not run.adapter.exists()
    assert thread.base.peft is None


def test_a_loss_that_is_no_number_ends_the_run_with_advice(home, recipe, tiny_llama, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    run, thread = train(home, edit(recipe, {"model.source": str(broken)}))
    assert thread.error is not None
    assert thread.error.kind == "nan_loss"
    assert "learning_rate" in thread.error.cure
    assert summarise(run).state == "failed"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model.source": "nobody/has-this-model-4711"}, None),
        ({"data.source": "/nowhere/records.jsonl"}, None),
        ({"adapter.target_modules": ["no_such_proj"]}, "adapter_target"),
    ],
)
def test_what_cannot_run_ends_in_a_sentence(home, recipe, changes, kind, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run, thread = train(home, edit(recipe, changes))
    assert thread.error is not None
    assert thread.error.message
    assert thread.error.cure
    assert kind is None or thread.error.kind == kind
    summary = summarise(run)
    assert summary.state == "failed"
    assert summary.reason == thread.error.message


def _wait_for_step(run, number, seconds=120):
    import time

    end = time.monotonic() + seconds
    while summarise(run).step < number:
        assert time.monotonic() < end, read_events(run.journal)[-3:]
        time.sleep(0.02)


def test_the_journal_names_the_part_whose_loss_differed(home, recipe, monkeypatch):
    """With an attention that sees neighbors the run takes padded batches, and says which part was to blame."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from workbench.engine.kernels.padding_free import PER_RECORD

    def sees_all(module, query, key, value, mask, **options):
        return sdpa_attention_forward(module, query, key, value, mask, is_causal=True)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, PER_RECORD, sees_all)
    plain = {"quantization.method": "none", "quantization.compute_dtype": "float32", "training.max_steps": 1}
    run, thread = train(home, edit(recipe, plain))
    assert thread.error is None
    said = [event for event in read_events(run.journal) if event["event"] == "phase" and event.get("padded_because")]
    assert len(said) == 1
    assert said[0]["padding_free"] is False
    assert "LlamaAttention (model.layers.0.self_attn)" in said[0]["padded_because"]
