"""Merged and GGUF exports of SmolLM2 with an adapter that was trained: logits those of the unmerged pair."""

import pytest

from tests.export.conftest import train
from workbench.export.request import Request
from workbench.export.run import export_run
from workbench.models.sources import find_local
from workbench.recipe.sections.model import ModelSection
from workbench.recipe.text import parse

pytestmark = pytest.mark.real
QUESTIONS = ("What is the capital of France?", "How do I sort a list in Python?", "Why is the sky blue?")


@pytest.fixture(scope="module")
def run(smollm2_home, tmp_path_factory):
    """Six steps of LoRA on the real model, in a folder of the test's own."""
    recipe = parse(
        {
            "adapter": {"r": 8},
            "data": {"max_length": 128},
            "training": {
                "max_steps": 6,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 1,
                "learning_rate": 5e-4,
                "save_steps": 0,
            },
            "output": {"name": "smol", "dir": str(tmp_path_factory.mktemp("runs"))},
        }
    )
    run = train(smollm2_home, recipe)
    yield run
    (smollm2_home.runs / run.id).unlink()


@pytest.fixture(scope="module")
def base(smollm2_home):
    return find_local(smollm2_home, ModelSection()).folder


@pytest.fixture(scope="module")
def prompts(run):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )["input_ids"]
        for question in QUESTIONS
    ]


def distributions(model, prompts):
    import torch

    with torch.inference_mode():
        return torch.cat([model.eval()(input_ids=ids).logits[0].float().log_softmax(-1) for ids in prompts])


@pytest.fixture(scope="module")
def unmerged(run, base, prompts):
    """``(base alone, base with adapter)`` by transformers and PEFT alone, log-probabilities in float32 arithmetic."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    alone = distributions(model, prompts)
    return alone, distributions(PeftModel.from_pretrained(model, run.adapter), prompts)


def divergence(first, second) -> float:
    return (first.exp() * (first - second)).sum(-1).mean().item()


def test_merged(smollm2_home, run, prompts, unmerged, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    export_run(smollm2_home, run, Request("merged", tmp_path / "out"), lambda told: None, bool)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    alone, tuned = unmerged
    # bfloat16 rounds each merged weight to 8 bits, and that is what this measures: a seventh of what six steps changed.
    assert divergence(tuned, distributions(model, prompts)) < 0.3 * divergence(tuned, alone)


# That f16 is exact is tested with a tiny model in test_weights.py.
def test_gguf(smollm2_home, run, prompts, unmerged, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    export_run(smollm2_home, run, Request("gguf", tmp_path / "out", type="q8_0"), lambda told: None, bool)
    name = f"{run.id}-q8_0.gguf"
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    alone, tuned = unmerged
    assert divergence(tuned, distributions(model, prompts)) < 0.1 * divergence(tuned, alone)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file=name)
    text = "<|im_start|>user\nWhy don't ships sink?<|im_end|>\n"
    assert tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(run.adapter)(text)["input_ids"]
